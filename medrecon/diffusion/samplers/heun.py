"""Heun's second-order step of the probability-flow ODE, with noise added before it or not (arXiv 2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NamedSampler

MOST = math.sqrt(2) - 1
"""largest churn: more fresh noise than there is would be left"""


@dataclass(frozen=True)
class Heun(NamedSampler):
    """dz/dsigma = (z - clean) / sigma, and the step from clean to target once; two estimates a step, one at the end.

    With `churn` (algorithm 2) fresh noise first takes z back up to sigma (1 + churn): a denoiser that is not exact then
    corrects what it did wrong at the levels before. Without it (algorithm 1) errors add up.

    Raises:
        ValueError: churn is not from 0 to sqrt(2) - 1.
    """

    churn: float = 0.0
    """gamma of the paper, a step"""
    between: tuple[float, float] = (0.05, 50.0)
    """noise levels where it is done (S_min, S_max of the paper's table 5, ImageNet)"""

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= MOST:
            raise ValueError(f"Heun: expected churn from 0 to {MOST:.2f}, got {self.churn:g}")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    @classmethod
    def with_noise(cls, eta: float) -> Heun:
        return cls(eta * MOST)

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        if self.churn and self.between[0] <= sigma <= self.between[1]:
            z = z + sigma * math.sqrt((1 + self.churn) ** 2 - 1) * draw(z)
            sigma = sigma * (1 + self.churn)
        estimate = guide(z, sigma)
        if sigma_next == 0:
            return estimate.target, estimate
        shift = estimate.target - estimate.clean
        slope = (z - estimate.clean) / sigma
        euler = z + (sigma_next - sigma) * slope + shift
        end = (euler - guide(euler, sigma_next).clean) / sigma_next
        return z + (sigma_next - sigma) * (slope + end) / 2 + shift, estimate

    @classmethod
    def examples(cls) -> Iterator[Heun]:
        yield cls()
        yield cls(churn=0.4)
