"""Heun's second-order step of the probability-flow ODE (Karras et al., arXiv 2206.00364, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.models.base import Denoiser
from medrecon.samplers.base import Estimate, denoise


@dataclass(frozen=True)
class Heun:
    """dz/dsigma = (z - D(z, sigma)) / sigma; two denoiser calls a step, one when sigma_next is 0."""

    order: ClassVar[int] = 2
    stochastic: ClassVar[bool] = False

    def step(
        self, denoiser: Denoiser, z: Tensor, sigma: float, sigma_next: float,
        previous: Estimate | None, generator: torch.Generator,
    ) -> tuple[Tensor, Estimate]:  # fmt: skip
        z0 = denoise(denoiser, z, sigma)
        slope = (z - z0) / sigma
        euler = z + (sigma_next - sigma) * slope
        if sigma_next == 0:
            return z0, Estimate(z0, sigma)
        end = (euler - denoise(denoiser, euler, sigma_next)) / sigma_next
        return z + (sigma_next - sigma) * (slope + end) / 2, Estimate(z0, sigma)

    @classmethod
    def examples(cls) -> Iterator[Heun]:
        yield cls()
