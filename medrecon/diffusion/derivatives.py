"""A denoiser at one noise level, and products with its Jacobian J = dD/dz; what is not finite is named."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.models.denoiser import Denoiser


def denoise(denoiser: Denoiser, z: Tensor, sigma: float) -> Tensor:
    """Return D(z, sigma), (N, C, h, w), with sigma clamped into the range the denoiser knows."""
    level = min(max(sigma, denoiser.sigma_min), denoiser.sigma_max)
    return denoiser(z, torch.full((len(z),), level, dtype=z.dtype, device=z.device))


def vjp(denoiser: Denoiser, z: Tensor, sigma: float, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return D(z, sigma) and J^T v, both (N, C, h, w)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        out = denoise(denoiser, z, sigma)
        (product,) = torch.autograd.grad(out, z, v)
    return out.detach(), product


def jvp(denoiser: Denoiser, z: Tensor, sigma: float, v: Tensor) -> Tensor:
    """Return J v (N, C, h, w), by forward-mode differentiation."""
    with torch.no_grad():
        result = torch.func.jvp(lambda x: denoise(denoiser, x, sigma), (z,), (v,))
    product: Tensor = result[1]
    return product


def check_finite(values: Tensor, what: str) -> None:
    """Raises ValueError, which says `what` they are, unless all values are finite."""
    if not bool(torch.isfinite(torch.view_as_real(values) if values.is_complex() else values).all()):
        raise ValueError(f"{what} is not finite: it has NaN or infinite values")
