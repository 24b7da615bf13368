"""A fast approximate inverse of operators that are nearly a convolution, such as A^H A of projectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medrecon.numerics.linalg import expand

Apply = Callable[[Tensor], Tensor]


def approximate_inverse(gram: Apply, like: Tensor, stiffness: Tensor, shift: Tensor) -> Apply:
    """Return r -> M^-1 r, M a convolution near gram + stiffness D^T D + shift, D the forward differences.

    A convolution between two diagonal scalings, as Fessler & Booth (IEEE TIP 8:688, 1999) precondition tomography. Its
    spectrum is that of gram's response to a point in the middle, averaged over directions: 1 / |f| of projections
    without the rays' own pattern, which turns from place to place. Images without sign also scale each pixel by the
    root of what gram makes of ones. M is positive definite and real-symmetric, so it is safe in CG.

    Args:
        gram: positive semidefinite, on (B, *item).
        like: any image (B, *item), of the dtype to come.
        stiffness, shift: (B,), >= 0.
    """
    shape, real = like.shape[1:], not like.is_complex()
    axes, middle = tuple(range(1, like.ndim)), [n // 2 for n in shape]
    rows: tuple[slice | int, ...] = (slice(None), *middle)
    point = torch.zeros_like(like)
    point[rows] = 1
    response = gram(point).roll([-n for n in middle], axes)
    spectrum = (_rfftn(response) if real else torch.fft.fftn(response, dim=axes)).real
    frequencies = _frequencies(like, real)
    spectrum = _isotropic(spectrum, frequencies, max(shape))
    bend = torch.stack([2 - 2 * (2 * torch.pi * f).cos() for f in frequencies]).sum(0)
    given = expand(stiffness, len(shape)) * bend + expand(shift, len(shape))
    total = spectrum + given
    least = 1e-6 * total.flatten(1).amax(1) + torch.finfo(total.dtype).tiny
    total = torch.maximum(total, expand(least, len(shape)))
    gain = total.reciprocal_()[..., None]
    even = 1 / _scale(gram(torch.ones_like(like)), rows) if real else None

    def inverse(r: Tensor) -> Tensor:
        if even is None:
            f = torch.fft.fftn(r, dim=axes)
            torch.view_as_real(f).mul_(gain)
            out: Tensor = torch.fft.ifftn(f, dim=axes)
            return out
        f = _rfftn(r * even)
        torch.view_as_real(f).mul_(gain)
        return _irfftn(f, shape).mul_(even)

    return inverse


def _rfftn(x: Tensor) -> Tensor:
    """Transform real (B, *item), on a CPU one by one: of several MKL may round otherwise."""
    return torch.stack([torch.fft.rfftn(item) for item in x]) if _alone(x) else torch.fft.rfftn(x, x.shape[1:])


def _irfftn(f: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Transform back to (B, *shape)."""
    return torch.stack([torch.fft.irfftn(item, shape) for item in f]) if _alone(f) else torch.fft.irfftn(f, shape)


def _alone(x: Tensor) -> bool:
    return x.device.type == "cpu" and len(x) > 0


def _frequencies(like: Tensor, half: bool) -> list[Tensor]:
    """Cycles a pixel along each axis, broadcast to one shape; the last axis halved for real transforms."""
    *first, last = like.shape[1:]
    made = [torch.fft.fftfreq(n, device=like.device) for n in first]
    made.append(torch.fft.rfftfreq(last, device=like.device) if half else torch.fft.fftfreq(last, device=like.device))
    return list(torch.meshgrid(*made, indexing="ij"))


def _isotropic(spectrum: Tensor, frequencies: list[Tensor], size: int) -> Tensor:
    """The mean of a spectrum (B, *shape) over each ring of frequencies, not below 0; the corners take the last ring."""
    ring = (size * torch.stack(frequencies).square().sum(0).sqrt()).round().long().clamp_max(size // 2).flatten()
    count = torch.zeros(size // 2 + 1, device=spectrum.device).index_add_(0, ring, torch.ones_like(ring).float())
    total = spectrum.new_zeros((len(spectrum), size // 2 + 1)).index_add_(1, ring, spectrum.flatten(1))
    mean = (total / count.clamp_min(1)).clamp_min(0)
    return mean[:, ring].reshape(spectrum.shape)


def _scale(ones: Tensor, middle: tuple[slice | int, ...]) -> Tensor:
    """The root of what each pixel adds, relative to the one in the middle, at least 1."""
    level = expand(ones[middle], ones.ndim - 1)
    return torch.where(level > 0, ones.clamp_min(0) / level, 1).sqrt().clamp_min(1)
