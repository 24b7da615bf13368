"""Ancestral sampling of the denoising diffusion model (arXiv 2006.11239, eq. 7): draws from q(z' | z, z0)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NamedSampler


@dataclass(frozen=True)
class Ancestral(NamedSampler):
    """q(z' | z, z0) = N(z0 + (s'/s)^2 (z - z0), s'^2 (1 - s'^2 / s^2) I)."""

    name: ClassVar[str] = "ancestral"
    order: ClassVar[int] = 1
    takes_samples: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        return True

    @classmethod
    def with_noise(cls, eta: float) -> Ancestral:
        if eta != 1:
            raise ValueError(f"ancestral: it adds all the noise there is, eta = 1, got {eta:g}; ddim takes any eta")
        return cls()

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        ratio = (sigma_next / sigma) ** 2
        mean = estimate.target + ratio * (z - estimate.clean)
        return mean + sigma_next * max(0.0, 1 - ratio) ** 0.5 * draw(z), estimate

    @classmethod
    def examples(cls) -> Iterator[Ancestral]:
        yield cls()
