"""DPS: diffusion posterior sampling (arXiv 2209.14687), its step in units of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import expand
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class DPSGuide(Guide):
    """A step down the gradient of -log p(y | x(z)) through both networks, x(z) being the image of D(z).

    Its length goes with sigma^2 / (sigma^2 / (1 + sigma^2)), as the published one has it in its variance-preserving
    units, and with the part of the misfit that noise does not explain: at chi^2/m = 1 it ends.
    """

    space: LatentSpace
    data: DataConsistency
    length: Tensor
    """of a step far from the data at sigma = 0, (N,)"""

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean, x, back = self.space.pulled(z, sigma)
        beyond = 1 - 1 / self.data.chi2(self.data.A(x)).sqrt().clamp_min(1)
        length = (1 + sigma**2) * self.length * beyond
        target = clean - expand(length, z.ndim - 1) * back(self.data.gradient(x))
        return Estimate(clean, target, self.space.decode(target), sigma)


@dataclass(frozen=True, eq=False)
class DPS(PosteriorSolver):
    """Every step: denoise, then down the gradient of the data's misfit by the noisy latent.

    The published step, zeta / |y - A x|, has a unit: what it does depends on the noise, the number of samples and |A|.
    Here it is `step` over the curvature of -log p(y | x): below 2 it does not diverge, whatever those are.
    """

    steps: int = 12
    samples: int = 4
    eta: float = 0.0
    """share of fresh noise; published with 1"""
    step: float = 1.9
    """of the gradient, in units of 1 / curvature"""

    name: ClassVar[str] = "dps"
    summary: ClassVar[str] = "diffusion posterior sampling: a gradient of the misfit through the networks each step"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step <= 0:
            raise ValueError(f"DPS: expected step > 0, got {self.step}")

    def guide(self, task: Task) -> DPSGuide:
        return DPSGuide(task.space, task.data, task.data.length(self.step, self.error(task).size))

    @classmethod
    def paper(cls, prior: Prior) -> DPS:
        """Return it with the published number of levels, from pure noise; the step stays in units of the noise."""
        return cls(prior, steps=1000, start=None, samples=1, eta=1.0, step=1.0)

    @classmethod
    def examples(cls) -> Iterator[DPS]:
        yield cls(example_prior(), steps=4, samples=2)
