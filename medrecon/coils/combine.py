"""Coil images and maps: combined, simulated (birdcage), and the images of the calibration region and their phase."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrecon.kspace.calibration import calibration_width
from medrecon.numerics.fourier import centred_ifft
from medrecon.sampling.lines import centre


def rss(images: Tensor) -> Tensor:
    """Return the root of the sum of squares over the coils: (..., C, H, W) -> (..., H, W), real (Roemer 1990)."""
    return torch.linalg.vector_norm(images, dim=-3)


def combine(images: Tensor, maps: Tensor) -> Tensor:
    """Combine coil images (..., C, H, W) to an image (..., H, W): sum conj(S) m / sum |S|^2, 0 where the maps are 0.

    The least-squares image of a fully sampled scan with white noise, SENSE with R = 1 (Roemer 1990, eq. 30); whiten
    images and maps first where the noise is correlated.

    Args:
        maps: (C, H, W) or (..., C, H, W).
    """
    if images.shape[-3:] != maps.shape[-3:]:
        raise ValueError(f"combine: coil images {tuple(images.shape)} and maps {tuple(maps.shape)} do not fit")
    energy = maps.abs().square().sum(-3)
    image = (maps.conj() * images).sum(-3)
    return torch.where(energy > 0, image / torch.where(energy > 0, energy, torch.ones_like(energy)), 0)


def relative_to_first(maps: Tensor) -> Tensor:
    """Return maps (C, ...) with the phase of coil 0 taken from all, as SigPy and most others state them."""
    first = maps[:1]
    return maps * torch.where(first == 0, 1, torch.sgn(first).conj())


def birdcage_maps(coils: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Simulate maps (C, H, W) complex64: smooth, complex, sum over coils |S|^2 = 1 at every pixel.

    Loop elements on a circle around the field of view, sensitivity 1 / distance with the azimuth as its phase (the
    birdcage of Fessler's MIRT); the generator turns the array and moves every element and phase a little.
    """
    if coils < 1 or min(shape) < 1:
        raise ValueError(f"birdcage_maps: at least one coil and one pixel, got {coils} coils, shape {tuple(shape)}")
    jitter = torch.rand((4, coils, 1, 1), generator=generator, dtype=torch.float64)
    turn = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64)
    angle = turn + 2 * math.pi * (torch.arange(coils).view(-1, 1, 1) + 0.3 * (jitter[0] - 0.5)) / coils
    radius = 1.6 + 0.2 * jitter[1]
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in shape)
    half = max(shape) / 2
    dy = rows.view(-1, 1) / half - radius * angle.sin()
    dx = columns.view(1, -1) / half - radius * angle.cos()
    along = dx * angle.cos() + dy * angle.sin()
    across = dy * angle.cos() - dx * angle.sin()
    phase = torch.atan2(across, -along) + 2 * math.pi * jitter[2]
    maps = torch.polar(1 / torch.sqrt(dx.square() + dy.square() + 0.1 * (1 + jitter[3])), phase)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def acs_images(kspace: Tensor, width: int | None = None) -> Tensor:
    """Return low-resolution coil images (..., C, H, W) from the centre of k-space (..., C, H, W), under a Hann window.

    Args:
        width: side of the central square used; by default the fully sampled one, at most 32, found from the zeros.

    Raises:
        ValueError: k-space has no fully sampled centre.
    """
    acquired = kspace.abs().reshape(-1, *kspace.shape[-2:]).amax(0) > 0
    side = min(calibration_width(acquired), 32) if width is None else width
    if side < 1:
        raise ValueError("acs_images: zero frequency was not acquired; give the maps or the phase")
    window = torch.zeros(kspace.shape[-2:], device=kspace.device)
    spans = [centre(n, min(side, n)) for n in kspace.shape[-2:]]
    tapers = [torch.hann_window(s.stop - s.start + 2, periodic=False, device=kspace.device)[1:-1] for s in spans]
    window[spans[0], spans[1]] = tapers[0][:, None] * tapers[1]
    return centred_ifft(window * kspace)


def smooth_phase(kspace: Tensor, maps: Tensor, width: int | None = None) -> Tensor:
    """Return the unit-modulus phase exp(i phi) of the low-resolution coil-combined image: (..., H, W) complex64.

    For magnitude priors: x = |x| exp(i phi) with phi smooth. Where the image is 0, the phase is 1.

    Args:
        kspace: (..., C, H, W). maps: (C, H, W) or (B, C, H, W). width, errors: see `acs_images`.
    """
    image = (maps.conj() * acs_images(kspace, width)).sum(-3)
    return torch.where(image == 0, 1, torch.sgn(image))
