"""Coil sensitivity maps: calibrated (ESPIRiT), simulated (birdcage), whitened; and the phase of the ACS image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrecon.operators.masks import centre

_AXES = (-2, -1)


def calibration_width(mask: Tensor) -> int:
    """Side of the largest fully sampled central square of a mask (H, W); 0 when zero frequency is missing."""
    height, width = mask.shape
    size = 0
    while size < min(height, width) and bool((mask[centre(height, size + 1), centre(width, size + 1)] != 0).all()):
        size += 1
    return size


def espirit(kspace: Tensor, acs: int | None = None, *, kernel: int = 6, threshold: float = 0.02,
            crop: float = 0.95) -> Tensor:  # fmt: skip
    """Coil sensitivity maps from the fully sampled centre of k-space (ESPIRiT, Uecker 2014; SigPy's).

    Args:
        kspace: (C, H, W) or (Z, C, H, W), 0 where not acquired.
        acs: width of the calibration square; found from the zeros of k-space (at most 24) by default.
        kernel, threshold, crop: kernel width, singular value and eigenvalue thresholds of SigPy.

    Returns:
        Maps shaped like kspace, sum over coils |S|^2 = 1 in the support and 0 outside; phase relative to coil 0.

    Raises:
        ValueError: no fully sampled centre of at least kernel + 2 samples, NaN, or a wrong shape.
    """
    if kspace.ndim == 4:
        return torch.stack([espirit(k, acs, kernel=kernel, threshold=threshold, crop=crop) for k in kspace])
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(f"espirit: k-space is complex (C, H, W) or (Z, C, H, W), got {kspace.dtype} {[*kspace.shape]}")
    if not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise ValueError("espirit: k-space has NaN or infinite samples; set samples that were not acquired to 0")
    found = calibration_width(kspace.abs().amax(0) > 0)
    width = min(found, 24) if acs is None else acs
    if width < kernel + 2 or width > found:
        need = max(width, kernel + 2)
        raise ValueError(
            f"espirit: calibration needs a fully sampled centre (ACS) of {need} x {need} samples, found {found}; "
            "acquire or simulate ACS lines (about 24), or give coil maps"
        )
    import sigpy.mri.app

    samples = kspace.detach().resolve_conj().to("cpu", torch.complex64).numpy()
    maps = sigpy.mri.app.EspiritCalib(
        samples, calib_width=width, thresh=threshold, kernel_width=kernel, crop=crop, show_pbar=False
    ).run()
    return torch.nan_to_num(torch.from_numpy(maps)).to(kspace.device, torch.complex64)


def birdcage_maps(coils: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Simulated maps (C, H, W) complex64: smooth, complex, sum over coils |S|^2 = 1 at every pixel.

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


def smooth_phase(kspace: Tensor, maps: Tensor, width: int | None = None) -> Tensor:
    """Unit-modulus phase exp(i phi) of the low-resolution coil-combined image: (..., H, W) complex64.

    For magnitude priors: x = |x| exp(i phi) with phi smooth. Where the image is 0, the phase is 1.

    Args:
        kspace: (..., C, H, W). maps: (C, H, W) or (B, C, H, W).
        width: side of the central square used, under a Hann window; found from the zeros of k-space by default.

    Raises:
        ValueError: k-space has no fully sampled centre.
    """
    acquired = kspace.abs().reshape(-1, *kspace.shape[-2:]).amax(0) > 0
    side = min(calibration_width(acquired), 32) if width is None else width
    if side < 1:
        raise ValueError("smooth_phase: zero frequency was not acquired; give the phase or use a complex prior")
    window = torch.zeros(kspace.shape[-2:], device=kspace.device)
    spans = [centre(n, min(side, n)) for n in kspace.shape[-2:]]
    tapers = [torch.hann_window(s.stop - s.start + 2, periodic=False, device=kspace.device)[1:-1] for s in spans]
    window[spans[0], spans[1]] = tapers[0][:, None] * tapers[1]
    coils = torch.fft.ifft2(torch.fft.ifftshift(window * kspace, dim=_AXES), norm="ortho")
    image = (maps.conj() * torch.fft.fftshift(coils, dim=_AXES)).sum(-3)
    size = image.abs()
    return torch.where(size > 0, image / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(image))


def whiten_coils(data: Tensor, maps: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Data and maps of virtual coils with uncorrelated noise of E|n|^2 = 1: both times L^-1, covariance = L L^H.

    Args:
        data: k-space (..., C, H, W). maps: (..., C, H, W). covariance: (C, C) Hermitian, E[n n^H].

    Raises:
        ValueError: the covariance does not fit or is not positive definite.
    """
    coils = data.shape[-3]
    if covariance.shape != (coils, coils) or maps.shape[-3] != coils:
        raise ValueError(
            f"whiten_coils: data of {coils} coils, maps of {maps.shape[-3]}, covariance {tuple(covariance.shape)}"
        )
    factor, info = torch.linalg.cholesky_ex(covariance.to(torch.complex128))
    if int(info) != 0:
        raise ValueError("whiten_coils: the covariance is not positive definite; use more noise samples than coils")
    inverse = torch.linalg.inv(factor).to(data.dtype)
    white, seen = (torch.einsum("ij,...jhw->...ihw", inverse, t.to(data.dtype)) for t in (data, maps))
    return white, seen
