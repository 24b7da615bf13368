"""FlowChef: steering a rectified flow by gradients that skip its network (arXiv 2412.00100)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.schedules import flow_uniform
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import expand
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class FlowChefGuide(Guide):
    """A step down the gradient of -log p(y | x(z0)) by z0 = D(z), as if dz0/dz were 1: only the decoder is pulled
    through."""

    space: LatentSpace
    data: DataConsistency
    length: Tensor
    """of a step, (N,)"""

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        x, back = self.space.decoded(clean)
        target = clean - expand(self.length, z.ndim - 1) * back(self.data.gradient(x))
        return Estimate(clean, target, self.space.decode(target), sigma)


@dataclass(frozen=True, eq=False)
class FlowChef(PosteriorSolver):
    """Every step: where the flow would end, a gradient step of the data there, and Euler along the flow.

    Any denoiser is a rectified flow: x = z / (1 + sigma) at t = sigma / (1 + sigma) has the velocity (x - D(z)) / t,
    and Euler's steps are those of DDIM with levels even in t. The published step has a unit; here it is `step` over the
    curvature of -log p(y | x): below 2 none diverges.
    """

    steps: int = 12
    samples: int = 4
    step: float = 1.0
    """of the gradient, in units of 1 / curvature"""

    name: ClassVar[str] = "flowchef"
    summary: ClassVar[str] = "rectified flow steered by the data's gradient at its end, not through its network"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < 2:
            raise ValueError(f"FlowChef: expected step above 0 and below 2, where it diverges, got {self.step}")

    def schedule(self, low: float, high: float) -> list[float]:
        levels: list[float] = flow_uniform(self.count(), low, high).tolist()
        return levels

    def guide(self, task: Task) -> FlowChefGuide:
        return FlowChefGuide(task.space, task.data, task.data.length(self.step, self.error(task).size))

    @classmethod
    def paper(cls, prior: Prior) -> FlowChef:
        """Return it with the published number of levels, from pure noise; the step stays in units of the noise."""
        return cls(prior, steps=200, start=None, samples=1)

    @classmethod
    def examples(cls) -> Iterator[FlowChef]:
        yield cls(example_prior(), steps=4, start=None, samples=2)
