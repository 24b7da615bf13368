"""Score-based SDEs with the data by projection (arXiv 2011.13456; of linear inverse problems, arXiv 2111.08005)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.schedules import log_uniform, sub_vp_uniform, vp_uniform
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver

SCHEDULES = {"ve": log_uniform, "vp": vp_uniform, "sub-vp": sub_vp_uniform}


@dataclass(frozen=True, eq=False)
class ProjectionGuide(Guide):
    """D of the noisy latent after it was made to agree with equally noisy data, y + sigma A n.

    That is: take noise n off, meet the data, n having been right to sigma, and put n back.
    """

    space: LatentSpace
    data: DataConsistency
    deviation: Tensor
    """of the image at noise level 1, (N,)"""
    draw: Draw

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        noise = sigma * self.draw(z)
        v = self.space.decode(z - noise)
        met = self.space.carried(z, v, self.data.prox(v, sigma * self.deviation))
        clean = self.space.denoise(met, sigma)
        # The noise that a sampler keeps, z - clean, is that of the projected latent.
        return Estimate(clean + z - met, clean, self.space.decode(clean), sigma)


@dataclass(frozen=True, eq=False)
class ScoreSDE(PosteriorSolver):
    """Every step: project the noisy latent onto the data, go down the reverse SDE, correct by Langevin dynamics.

    The variance-exploding, variance-preserving and sub-variance-preserving SDEs are one in z = x / a (`Process`); they
    differ in where their levels lie. The projection is not the score of the posterior: it knows nothing of what the
    seen tells about the unseen but by the steps that follow.

    Raises:
        ValueError: no such process; or what `PosteriorSolver` refuses.
    """

    steps: int = 12
    samples: int = 4
    sampler: str = "pc"
    """pc, the published one, or any other"""
    eta: float = 1.0
    """share of fresh noise"""
    process: Literal["ve", "vp", "sub-vp"] = "ve"
    """whose time the levels are spaced evenly in"""
    cg_iterations: int = 15
    """of the projection, where the operator knows no closed form"""

    name: ClassVar[str] = "score-sde"
    summary: ClassVar[str] = "score-based SDE: predictor-corrector steps, the noisy image projected onto the data"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.process not in SCHEDULES:
            raise ValueError(f"ScoreSDE: unknown process {self.process!r}; there are: {', '.join(SCHEDULES)}")

    def schedule(self, low: float, high: float) -> list[float]:
        levels: list[float] = SCHEDULES[self.process](self.count(), low, high).tolist()
        return levels

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> ProjectionGuide:
        return ProjectionGuide(task.space, task.data, self.deviation(task), task.draw)

    @classmethod
    def paper(cls, prior: Prior) -> ScoreSDE:
        """Return it with the published number of levels, from pure noise."""
        return cls(prior, steps=1000, start=None, samples=1)

    @classmethod
    def examples(cls) -> Iterator[ScoreSDE]:
        yield cls(example_prior(), steps=4)
        yield cls(example_prior(), steps=4, samples=2, process="sub-vp")
