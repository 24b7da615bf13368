"""DAPS: decoupled annealing posterior sampling (arXiv 2407.01521), its inner draws exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.flow import flow_end
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.samplers.base import sampler_named
from medrecon.diffusion.trust import PixelError, one_number
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class DAPSGuide(Guide):
    """A sample of p(z0 | z, y): what the prior's own flow leads z to is taken as z0 to a known deviation (its eq. 7),
    and the data say the rest."""

    space: LatentSpace
    data: DataConsistency
    error: PixelError
    draw: Draw
    flow_steps: int

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        z0 = flow_end(self.space, z, sigma, self.flow_steps, self.draw)
        v = self.space.decode(z0)
        tau = self.data.deviation(self.data.A(v), self.error(v, sigma, None))
        x = self.data.drawn(v, one_number(tau), self.draw)
        target = self.space.carried(z0, v, x)
        return Estimate(target, target, x, sigma)


@dataclass(frozen=True, eq=False)
class DAPS(PosteriorSolver):
    """Every step: a sample of the clean image given the noisy one and the data, noise again.

    The paper draws it by 100 Langevin steps. Of a Gaussian and linear data it can be had exactly, by one
    proximal point (`DataConsistency.drawn`), in pixels, from where the encoder carries it to the latent.

    Raises:
        ValueError: a sampler that takes estimates and no samples, or no flow_steps.
    """

    steps: int = 12
    start: float | None = 1.6
    end: float | None = 0.1
    samples: int = 4
    sampler: str = "renoise"
    """renoise, the published one, ddim or ancestral"""
    eta: float = 1.0
    """share of fresh noise; 1, the published value, forgets all that the last level did wrong"""
    flow_steps: int = 1
    """denoiser calls a level"""
    cg_iterations: int = 15
    """of the draw, where the operator knows no closed form"""

    name: ClassVar[str] = "daps"
    summary: ClassVar[str] = "decoupled annealing: a posterior sample of the clean image at each level, noise again"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow_steps < 1:
            raise ValueError(f"DAPS: expected flow_steps >= 1, got {self.flow_steps}")
        if not sampler_named(self.sampler, self.eta).takes_samples:
            raise ValueError(f"DAPS: {self.sampler} needs estimates, and gets samples; take renoise, ddim or ancestral")

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> DAPSGuide:
        return DAPSGuide(task.space, task.data, self.error(task), task.draw, self.flow_steps)

    @classmethod
    def paper(cls, prior: Prior) -> DAPS:
        """Return it with the published levels and flow, from pure noise; the draws stay exact."""
        return cls(prior, steps=200, start=None, end=0.1, samples=1, flow_steps=5)

    @classmethod
    def examples(cls) -> Iterator[DAPS]:
        yield cls(example_prior(), steps=4)
