"""Renoising: the target with noise of the next level, part of it new (arXiv 2305.08995, eq. 15; 2407.01521, eq. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NamedSampler


@dataclass(frozen=True)
class Renoise(NamedSampler):
    """z' = target + s' (sqrt(1 - eta^2) (z - clean) / s + eta n); eta^2 is zeta of DiffPIR.

    The share of fresh noise is that of a step, however short: many steps forget the noise they began with, and what was
    wrong with it. The targets are samples of p(z0 | z, y): E[z0 | z, y] would lose their spread.

    Raises:
        ValueError: eta is not from 0 to 1.
    """

    eta: float = 1.0

    name: ClassVar[str] = "renoise"
    order: ClassVar[int] = 1
    takes_estimates: ClassVar[bool] = False
    takes_samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"renoise: expected eta from 0 to 1, got {self.eta:g}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @classmethod
    def with_noise(cls, eta: float) -> Renoise:
        return cls(eta)

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        kept = (1 - self.eta**2) ** 0.5 / sigma * (z - estimate.clean)
        return estimate.target + sigma_next * (kept + self.eta * draw(z)), estimate

    @classmethod
    def examples(cls) -> Iterator[Renoise]:
        yield cls()
        yield cls(eta=0.5)
