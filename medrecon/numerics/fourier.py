"""Centred Fourier transforms, the convention of all k-space here: zero frequency and image centre at n // 2."""

from __future__ import annotations

import torch
from torch import Tensor

Axes = int | tuple[int, ...]


def centred_fft(x: Tensor, dim: Axes = (-2, -1)) -> Tensor:
    """Transform an image centred at n // 2 along `dim` by an orthonormal FFT, zero frequency at n // 2."""
    axes = (dim,) if isinstance(dim, int) else dim
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)


def centred_ifft(k: Tensor, dim: Axes = (-2, -1)) -> Tensor:
    """Invert `centred_fft`; its adjoint, too."""
    axes = (dim,) if isinstance(dim, int) else dim
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(k, axes), dim=axes, norm="ortho"), axes)


def crop_or_pad(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Crop or zero-pad to (..., *shape): index n // 2 becomes index m // 2 of each of the last axes."""
    out = x.new_zeros(*x.shape[: x.ndim - len(shape)], *shape)
    source, target = x, out
    for axis, m in enumerate(shape, -len(shape)):
        n, kept = x.shape[axis], min(x.shape[axis], m)
        source = source.narrow(axis, n // 2 - kept // 2, kept)
        target = target.narrow(axis, m // 2 - kept // 2, kept)
    target.copy_(source)
    return out
