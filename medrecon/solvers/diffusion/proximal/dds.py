"""DDS: decomposed diffusion sampling (arXiv 2303.05754), in the latent space of an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import GuidedSolver, Task, example_prior


@dataclass(frozen=True, eq=False)
class DDSGuide(Guide):
    """A few CG steps of the proximal problem from D(z0), its weight read off the residual, and back to the latent."""

    space: LatentSpace
    data: DataConsistency
    error: PixelError

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        v = self.space.decode(clean)
        x = self.data.prox(v, self.data.deviation(self.data.A(v), self.error(v, sigma, None)))
        return Estimate(clean, self.space.carried(clean, v, x), x, sigma)


@dataclass(frozen=True, eq=False)
class DDS(GuidedSolver):
    """Every step: denoise, a few CG steps of the proximal problem from D(z0), back to the latent, DDIM(eta).

    The published method works on pixels with gamma = 1 (`dds-paper`); with an identity autoencoder this is that method
    with gamma = tau^2 / sigma_y^2 read off the residual (`DataConsistency.deviation`).
    """

    steps: int = 25
    """denoiser calls"""
    eta: float = 0.85
    """share of fresh noise, the published value"""
    start: float | None = 0.25
    """noise level at which the reverse process starts, from the TV reconstruction; sigma_max means from noise"""
    cg_iterations: int = 5
    """CG steps of the proximal problem, the published value"""

    name: ClassVar[str] = "dds"
    summary: ClassVar[str] = "decomposed diffusion sampling: a few CG steps inside every denoising step"

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> DDSGuide:
        return DDSGuide(task.space, task.data, PixelError.around(task.views, task.start, warm=task.warm))

    @classmethod
    def examples(cls) -> Iterator[DDS]:
        yield cls(example_prior(), steps=4)
