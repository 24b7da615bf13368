"""ReSample as published (arXiv 2307.08123, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.resample.published import Published, PublishedGuide, TimeTravel


@dataclass(frozen=True, eq=False)
class PaperSteps(TimeTravel):
    """The steps of the paper."""

    def first(self, guide: PublishedGuide, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return self.ahead(guide, x, index)

    def ahead(self, guide: PublishedGuide, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return self.ddim(guide, x, index, index)[:2]

    def variance(self, index: int) -> float:
        """Return gamma (1 - ap) / a (1 - a / ap)."""
        a, ap = self.abar(index), self.abar(index - 1)
        return self.settings.gamma * (1 - ap) / a * (1 - a / ap)


@dataclass(frozen=True, eq=False)
class ReSamplePaper(Published):
    """The published algorithm with Adam in pixel and latent space and stochastic resampling."""

    name: ClassVar[str] = "resample-paper"
    summary: ClassVar[str] = "latent diffusion with hard data consistency, as published"
    slow: ClassVar[bool] = True

    def stepper(self) -> PaperSteps:
        return PaperSteps(self)

    @classmethod
    def examples(cls) -> Iterator[ReSamplePaper]:
        yield cls(example_prior(), steps=12, skip=2, travel=2, pixel_iterations=5, latent_iterations=5)
