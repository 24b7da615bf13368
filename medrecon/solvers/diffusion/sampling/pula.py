"""pULA: preconditioned unadjusted Langevin dynamics with the exact likelihood (arXiv 2512.05791)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.samplers.base import Sampler
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import SampledSolver


@dataclass(frozen=True, eq=False)
class PULAGuide(Guide):
    """Where a Langevin step leads to: a draw from the Gaussian of D(z), known to sigma, and the data.

    Its mean is z + P grad log p(z | y), p(z | y) that of the prior at noise sigma and the likelihood as it is, with
    P = (A^H W A + sigma^-2)^-1; its noise, P^(1/2) n, is a draw by the same proximal point.
    """

    space: LatentSpace
    data: DataConsistency
    deviation: Tensor
    """of the image at noise level 1, (N,)"""
    draw: Draw
    size: float
    """of the draw's deviation, in units of P^(1/2)"""

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        v = self.space.decode(clean)
        x = self.data.drawn(v, sigma * self.deviation, self.draw, self.size)
        return Estimate(clean, self.space.carried(clean, v, x), v, sigma)


@dataclass(frozen=True)
class Relaxed(Sampler):
    """z' = z + step (target - z), at any level; the end is the denoised latent."""

    length: float

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        return torch.lerp(z, estimate.target, self.length) if sigma_next else estimate.clean, estimate


@dataclass(frozen=True, eq=False)
class PULA(SampledSolver):
    """At every noise level of the prior, falling: Langevin steps z' = z + step P grad log p(z | y) + sqrt(2 step P) n.

    With P they are as long for what is seen as for what is not, whatever operator, noise and level. Unadjusted steps
    keep more variance than there is, by 1 / (1 - step / 2) at most, where the data say all.

    Raises:
        ValueError: a step not between 0 and 2, or no sweeps; or what `SampledSolver` refuses.
    """

    steps: int = 25
    start: float | None = 1.6
    end: float | None = 0.1
    """noise levels"""
    sweeps: int = 2
    """Langevin steps a level"""
    step: float = 0.5
    """of Langevin dynamics, in units of P"""
    cg_iterations: int = 15
    """of a step, where the operator knows no closed form"""

    name: ClassVar[str] = "pula"
    summary: ClassVar[str] = "preconditioned Langevin dynamics: posterior samples, the likelihood exact at every level"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < 2 or self.sweeps < 1:
            raise ValueError(f"PULA: expected a step between 0 and 2 and sweeps >= 1, got {self.step}, {self.sweeps}")

    def levels(self) -> list[float]:
        *levels, end = super().levels()
        return [level for level in levels for _ in range(self.sweeps)] + [end]

    def stepper(self) -> Relaxed:
        return Relaxed(self.step)

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> PULAGuide:
        return PULAGuide(task.space, task.data, self.deviation(task), task.draw, math.sqrt(2 / self.step))

    @classmethod
    def examples(cls) -> Iterator[PULA]:
        yield cls(example_prior(), steps=4)
