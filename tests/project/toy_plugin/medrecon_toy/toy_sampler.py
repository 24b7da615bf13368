"""Euler's steps of the probability flow, as a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.samplers.base import Estimate, denoise
from medrecon.models.prior import Denoiser


@dataclass(frozen=True)
class ToyEuler:
    """z' = z0 + (sigma' / sigma) (z - z0)."""

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

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
        return z0 + sigma_next / sigma * (z - z0), Estimate(z0, sigma)

    @classmethod
    def examples(cls) -> Iterator[ToyEuler]:
        yield cls()
