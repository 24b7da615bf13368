"""ReSample as its public reference code behaves (commit 3e332b2), for comparison only.

It deviates from the paper: a latent-DPS gradient at every step, (1 - abar) instead of its root in the estimate handed
to data consistency, look-ahead coefficients one index late, and another variance in the stochastic resampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.resample.published import Published, PublishedGuide, TimeTravel


@dataclass(frozen=True, eq=False)
class ReferenceSteps(TimeTravel):
    """The steps of the reference code."""

    guidance: float

    def first(self, guide: PublishedGuide, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return a DDIM step minus guidance * abar * gradient of |y - A D(z0)| with respect to x."""
        hard = guide.hard
        loss, samples = hard.loss(hard.unit), hard.y.data[0].numel()
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            moved, z0 = self._handed(guide, leaf, index, index)
            misfit = (loss(hard.space.decode(z0)) * samples).sqrt().sum()
            gradient = torch.autograd.grad(misfit, leaf)[0]
        return moved.detach() - self.guidance * self.abar(index) * gradient, z0.detach()

    def ahead(self, guide: PublishedGuide, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return a step whose coefficients are those of the index before, where x comes from."""
        return self._handed(guide, x, index + 1, index)

    def _handed(self, guide: PublishedGuide, x: Tensor, index: int, network_index: int) -> tuple[Tensor, Tensor]:
        """A DDIM step, and the estimate that is handed to data consistency, with 1 - abar instead of its root."""
        a = self.abar(index)
        moved, _, e = self.ddim(guide, x, index, network_index)
        return moved, (x - (1 - a) * e) / a**0.5

    def variance(self, index: int) -> float:
        """Return gamma (1 - ap) / (1 - a) (1 - a / ap)."""
        a, ap = self.abar(index), self.abar(index - 1)
        return self.settings.gamma * (1 - ap) / (1 - a) * (1 - a / ap)


@dataclass(frozen=True, eq=False)
class ReSampleReference(Published):
    """What the public reference code does, known deviations and errors included."""

    guidance: float = 0.5
    """strength of the latent-DPS gradient"""

    name: ClassVar[str] = "resample-reference"
    summary: ClassVar[str] = "latent diffusion with hard data consistency, as its public code behaves"
    slow: ClassVar[bool] = True

    def stepper(self) -> ReferenceSteps:
        return ReferenceSteps(self, self.guidance)

    @classmethod
    def examples(cls) -> Iterator[ReSampleReference]:
        yield cls(example_prior(), steps=12, skip=2, travel=2, pixel_iterations=5, latent_iterations=5)
