"""DiffPIR: plug-and-play restoration with a diffusion denoiser (arXiv 2305.08995)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class DiffPIRGuide(Guide):
    """argmin_x |W^(1/2) (A x - y)|^2 + lambda |x - D(z)|^2 / sigma^2 (its eq. 13): one number weighs an item.

    The noise is then taken to be what is left, z - x, not what the denoiser took it for.
    """

    space: LatentSpace
    data: DataConsistency
    deviation: Tensor
    """of the image at noise level 1, (N,)"""

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        z0 = self.space.denoise(z, sigma)
        v = self.space.decode(z0)
        x = self.data.prox(v, sigma * self.deviation)
        target = self.space.carried(z0, v, x)
        return Estimate(target, target, x, sigma)


@dataclass(frozen=True, eq=False)
class DiffPIR(PosteriorSolver):
    """Every step: denoise, the proximal point of the data, noise again."""

    sampler: str = "renoise"
    """renoise, the published one, or any other"""
    eta: float = 1.0
    """share of fresh noise, the root of the published zeta"""
    weight: float = 1.0
    """lambda, of the denoised image against the data"""
    cg_iterations: int = 15
    """of the proximal point, where the operator knows no closed form"""

    name: ClassVar[str] = "diffpir"
    summary: ClassVar[str] = "plug-and-play with a diffusion denoiser: denoise, meet the data, add noise again"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight <= 0:
            raise ValueError(f"DiffPIR: expected weight > 0, got {self.weight}")

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> DiffPIRGuide:
        return DiffPIRGuide(task.space, task.data, self.deviation(task) / self.weight**0.5)

    @classmethod
    def paper(cls, prior: Prior) -> DiffPIR:
        """Return it with the settings its authors publish for deblurring, but our levels, from pure noise."""
        return cls(prior, steps=100, start=None, eta=0.1**0.5, weight=1.0)

    @classmethod
    def examples(cls) -> Iterator[DiffPIR]:
        yield cls(example_prior(), steps=4)
