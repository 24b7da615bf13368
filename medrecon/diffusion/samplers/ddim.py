"""DDIM (arXiv 2010.02502, eq. 12) with any eta."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.samplers.base import Estimate, denoise
from medrecon.models.denoiser import Denoiser


def ddim_update(z: Tensor, z0: Tensor, sigma: float, sigma_next: float, eta: float, noise: Tensor) -> Tensor:
    """z0 + sqrt(s'^2 - v^2) (z - z0) / s + v n with v = eta s' sqrt(1 - s'^2 / s^2): keeps the marginal exactly."""
    fresh = eta * sigma_next * max(0.0, 1 - (sigma_next / sigma) ** 2) ** 0.5
    kept = max(0.0, sigma_next**2 - fresh**2) ** 0.5
    return z0 + kept / sigma * (z - z0) + fresh * noise


@dataclass(frozen=True)
class DDIM:
    """eta = 0: the probability-flow ODE by Euler in sigma; eta = 1: ancestral."""

    eta: float = 0.0
    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(
        self,
        denoiser: Denoiser,
        z: Tensor,
        sigma: float,
        sigma_next: float,
        previous: Estimate | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Estimate]:
        z0 = denoise(denoiser, z, sigma)
        noise = torch.zeros_like(z)
        if self.eta:
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
        return ddim_update(z, z0, sigma, sigma_next, self.eta, noise), Estimate(z0, sigma)

    @classmethod
    def examples(cls) -> Iterator[DDIM]:
        yield cls()
        yield cls(eta=0.85)
