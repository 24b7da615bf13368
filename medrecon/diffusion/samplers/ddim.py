"""DDIM (arXiv 2010.02502, eq. 12) with any eta."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NamedSampler


def shares(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Return how much of the noise at sigma_next is kept and how much is fresh: kept^2 + fresh^2 = sigma_next^2.

    fresh = eta s' sqrt(1 - s'^2 / s^2), eta = 1 being that of q(z' | z, z0).
    """
    fresh = eta * sigma_next * max(0.0, 1 - (sigma_next / sigma) ** 2) ** 0.5
    return max(0.0, sigma_next**2 - fresh**2) ** 0.5, fresh


@dataclass(frozen=True)
class DDIM(NamedSampler):
    """z' = target + kept (z - clean) / s + fresh n. eta = 0: the probability-flow ODE by Euler in sigma; 1: ancestral.

    Raises:
        ValueError: eta is not from 0 to 1.
    """

    eta: float = 0.0

    name: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    takes_samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"ddim: expected eta from 0 to 1, got {self.eta:g}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @classmethod
    def with_noise(cls, eta: float) -> DDIM:
        return cls(eta)

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        kept, fresh = shares(sigma, sigma_next, self.eta)
        moved = estimate.target + kept / sigma * (z - estimate.clean)
        return moved + fresh * draw(z) if self.eta else moved, estimate

    @classmethod
    def examples(cls) -> Iterator[DDIM]:
        yield cls()
        yield cls(eta=0.85)
