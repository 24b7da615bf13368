"""The trace of the Jacobian J = dD/dz of a denoiser, by random probes."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.diffusion.derivatives import vjp
from medrecon.models.denoiser import Denoiser


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs, the probe of least variance for a trace (Hutchinson, Commun. Stat. 19 (1990) 433)."""
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)


def trace(denoiser: Denoiser, z: Tensor, sigma: float, probe: Tensor) -> tuple[Tensor, Tensor]:
    """D(z, sigma) and v^T J v (B,), float64: tr J on the mean over random signs v."""
    out, product = vjp(denoiser, z, sigma, probe)
    return out, (product * probe).double().flatten(1).sum(1)
