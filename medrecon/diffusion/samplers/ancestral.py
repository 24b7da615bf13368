"""Ancestral sampling of the denoising diffusion model (arXiv 2006.11239, eq. 7): draws from q(z' | z, z0)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.samplers.base import Estimate, denoise
from medrecon.models.denoiser import Denoiser


@dataclass(frozen=True)
class Ancestral:
    """q(z' | z, z0) = N(z0 + (s'/s)^2 (z - z0), s'^2 (1 - s'^2 / s^2) I)."""

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

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
        ratio = (sigma_next / sigma) ** 2
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
        return z0 + ratio * (z - z0) + sigma_next * max(0.0, 1 - ratio) ** 0.5 * noise, Estimate(z0, sigma)

    @classmethod
    def examples(cls) -> Iterator[Ancestral]:
        yield cls()
