"""Heun's second-order step of the probability-flow ODE, with noise added before it or not (arXiv 2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.samplers.base import Estimate, denoise
from medrecon.models.denoiser import Denoiser

MOST = math.sqrt(2) - 1
"""largest churn: more fresh noise than there is would be left"""


@dataclass(frozen=True)
class Heun:
    """dz/dsigma = (z - D(z, sigma)) / sigma; two denoiser calls a step, one when sigma_next is 0.

    With `churn` (algorithm 2) fresh noise first takes z back up to sigma (1 + churn): a denoiser that is not exact then
    corrects what it did wrong at the levels before. Without it (algorithm 1) errors add up.

    Raises:
        ValueError: churn is not from 0 to sqrt(2) - 1.
    """

    churn: float = 0.0
    """gamma of the paper, a step"""
    between: tuple[float, float] = (0.05, 50.0)
    """noise levels where it is done (S_min, S_max of the paper's table 5, ImageNet)"""

    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= MOST:
            raise ValueError(f"Heun: expected churn from 0 to {MOST:.2f}, got {self.churn:g}")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def step(
        self,
        denoiser: Denoiser,
        z: Tensor,
        sigma: float,
        sigma_next: float,
        previous: Estimate | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Estimate]:
        if self.churn and self.between[0] <= sigma <= self.between[1]:
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
            z = z + sigma * math.sqrt((1 + self.churn) ** 2 - 1) * noise
            sigma = sigma * (1 + self.churn)
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
        yield cls(churn=0.4)
