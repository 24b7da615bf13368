"""Products with the Jacobian J = dD/dz of a denoiser, and its trace by random probes."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.diffusion.samplers.base import denoise
from medrecon.models.denoiser import Denoiser


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs, the probe of least variance for a trace (Hutchinson, Commun. Stat. 19 (1990) 433)."""
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)


def vjp(denoiser: Denoiser, z: Tensor, sigma: float, v: Tensor) -> tuple[Tensor, Tensor]:
    """D(z, sigma) and J^T v, both (B, C, h, w)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        out = denoise(denoiser, z, sigma)
        (product,) = torch.autograd.grad(out, z, v)
    return out.detach(), product


def jvp(denoiser: Denoiser, z: Tensor, sigma: float, v: Tensor) -> Tensor:
    """J v (B, C, h, w), by forward-mode differentiation."""
    with torch.no_grad():
        result = torch.func.jvp(lambda x: denoise(denoiser, x, sigma), (z,), (v,))
    product: Tensor = result[1]
    return product


def trace(denoiser: Denoiser, z: Tensor, sigma: float, probe: Tensor) -> tuple[Tensor, Tensor]:
    """D(z, sigma) and v^T J v (B,), float64: tr J on the mean over random signs v."""
    out, product = vjp(denoiser, z, sigma, probe)
    return out, (product * probe).double().flatten(1).sum(1)
