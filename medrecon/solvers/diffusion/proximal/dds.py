"""DDS: decomposed diffusion sampling (arXiv 2303.05754), in the latent space of an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.anneal import Anneal
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
    anneal: Anneal = Anneal()

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.space.denoise(z, sigma)
        v = self.space.decode(clean)
        x = self.data.prox(v, self.deviation(v, self.data.A(v), sigma))
        return Estimate(clean, self.space.carried(clean, v, x), x, sigma)

    def deviation(self, v: Tensor, projection: Tensor, sigma: float) -> Tensor:
        """Return tau (N, H, W) of v = D(z0), whose projection is given."""
        return self.data.deviation(projection, self.error(v, sigma, None), self.anneal(sigma))


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
    start: float | None = 1.6
    """noise level at which the reverse process starts, from the TV reconstruction; sigma_max means from noise"""
    end: float | None = 0.25
    """last noise level"""
    cg_iterations: int = 15
    """CG steps of the proximal problem; published with 5"""
    anneal: float = 0.0
    """above 0, the data's weight falls with the noise level to this power; below 0 it rises; 0 is their own weight"""

    name: ClassVar[str] = "dds"
    summary: ClassVar[str] = "decomposed diffusion sampling: a few CG steps inside every denoising step"

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> DDSGuide:
        error = PixelError.around(task.views, task.start, warm=task.warm)
        return DDSGuide(task.space, task.data, error, Anneal.over(self.anneal, self.levels()))

    @classmethod
    def examples(cls) -> Iterator[DDS]:
        yield cls(example_prior(), steps=4)
