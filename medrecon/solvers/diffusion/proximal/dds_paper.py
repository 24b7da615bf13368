"""DDS as published (arXiv 2303.05754, algorithm 1): one gamma, five CG steps, from pure noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency, unweighted
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.schedules import vp_uniform
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import GuidedSolver, Task, example_prior


@dataclass(frozen=True, eq=False)
class DDSPaperGuide(Guide):
    """CG on (I + gamma A^H A) x = v + gamma A^H y from v = D(z0), with A of norm 1."""

    space: LatentSpace
    data: DataConsistency
    gamma: float

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        v = self.space.decode(clean)
        x = self.data.prox(v, torch.full_like(v.real, self.gamma**0.5))
        return Estimate(clean, self.space.carried(clean, v, x), x, sigma)


@dataclass(frozen=True, eq=False)
class DDSPaper(GuidedSolver):
    """The published settings, for pixels; the noise of the data is not asked for.

    In place of the reference code's CG, whose products of complex vectors lack the conjugate and are summed over the
    whole batch, stands one of complex vectors, item by item. gamma is for an operator of norm 1, which A is made.
    """

    eta: float = 0.85
    """share of fresh noise"""
    gamma: float = 1.0
    """weight of the data"""
    cg_iterations: int = 5
    """CG steps a noise level"""

    name: ClassVar[str] = "dds-paper"
    summary: ClassVar[str] = "decomposed diffusion sampling as published: one gamma, from noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma <= 0 or self.cg_iterations < 1:
            raise ValueError(f"DDS: expected gamma > 0 and CG iterations >= 1, got {self.gamma}, {self.cg_iterations}")

    def schedule(self, low: float, high: float) -> list[float]:
        levels: list[float] = vp_uniform(self.count(), low, high).tolist()
        return levels

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        """Return data consistency that weighs all samples alike."""
        return DataConsistency(A, unweighted(A, y), self.cg_iterations, tolerance=0.0)

    def guide(self, task: Task) -> DDSPaperGuide:
        return DDSPaperGuide(task.space, task.data, self.gamma)

    @classmethod
    def examples(cls) -> Iterator[DDSPaper]:
        yield cls(example_prior(), steps=4)
