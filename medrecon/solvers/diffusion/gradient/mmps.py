"""MMPS: moment matching posterior sampling (arXiv 2405.13712), its clean images drawn by perturb-and-MAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw, white
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.samplers.base import sampler_named
from medrecon.models.prior import Prior
from medrecon.numerics.lanczos import root_times
from medrecon.numerics.linalg import cg
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class MMPSGuide(Guide):
    """p(z0 | z) is taken as N(D(z), S), S = sigma^2 dD/dz: the two moments that the denoiser knows (Tweedie).

    What the data add to a z0 of it is S B^H (B S B^H + 1)^-1 (y - B z0), B the whitened operator behind the decoder. Of
    D(z) that makes E[z0 | z, y]; of a draw from N(D(z), S), and data with a draw of their noise added, one of
    p(z0 | z, y). Nothing but products with the Jacobian is asked for.
    """

    space: LatentSpace
    data: DataConsistency
    draw: Draw | None
    """None: no draws, the mean"""
    products: int

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        data, (clean, through) = self.data, self.space.denoised(z, sigma)
        x, back = self.space.decoded(clean)
        covariance = lambda v: sigma**2 * through(v)  # noqa: E731
        down = lambda u: back(data.whitened.adjoint(u))  # noqa: E731
        up = lambda v: data.whitened(self.space.pushed(clean, v))  # noqa: E731
        z0, misfit = clean, data.data - data.whitened(x)
        if self.draw is not None:
            moved = root_times(covariance, self.draw(z), self.products)
            noise = torch.where(data.y.precision > 0, white(self.draw, data.data), 0)
            z0, misfit = clean + moved, misfit + noise - up(moved)
        z0 = z0 + covariance(down(self.solved(lambda u: up(covariance(down(u))), misfit)))
        return Estimate(z0, z0, self.space.decode(z0), sigma)

    def solved(self, gram: Callable[[Tensor], Tensor], misfit: Tensor) -> Tensor:
        """Return (B S B^H + 1)^-1 misfit; 1 / 2 for complex data, whose parts have half the noise's variance each."""
        matrix = lambda u: gram(u) + u / self.data.parts  # noqa: E731
        return cg(matrix, misfit, ndim=misfit.ndim - 1, iterations=self.products, tolerance=1e-4).x


@dataclass(frozen=True, eq=False)
class MMPS(PosteriorSolver):
    """Every step: a sample of p(z0 | z, y) with the covariance that the denoiser's own Jacobian tells, noise again.

    Exact for a Gaussian prior, with any number of levels. Published without the draws: E[z0 | z, y] then takes many.
    """

    sampler: str = "renoise"
    eta: float = 1.0
    """share of fresh noise"""
    draws: bool = True
    """go on from a sample of p(z0 | z, y); off, as published, from its mean, which serves every sampler but renoise"""
    products: int = 10
    """with the Jacobian, for the inverse and again for a draw: each about as much as a network call"""

    name: ClassVar[str] = "mmps"
    summary: ClassVar[str] = "moment matching: posterior samples with the covariance of the denoiser's own Jacobian"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.products < 1:
            raise ValueError(f"MMPS: expected products >= 1, got {self.products}")
        law, wanted = sampler_named(self.sampler, self.eta), "samples" if self.draws else "estimates"
        if not (law.takes_samples if self.draws else law.takes_estimates):
            raise ValueError(f"MMPS: {self.sampler} does not go on from {wanted}, which draws={self.draws} gives it")

    def guide(self, task: Task) -> MMPSGuide:
        return MMPSGuide(task.space, task.data, task.draw if self.draws else None, self.products)

    @classmethod
    def paper(cls, prior: Prior) -> MMPS:
        """Return it as published: three products a level, no draws, DDIM with fresh noise, from pure noise."""
        return cls(prior, steps=100, start=None, sampler="ddim", eta=1.0, draws=False, products=3)

    @classmethod
    def examples(cls) -> Iterator[MMPS]:
        yield cls(example_prior(), steps=3, start=None, samples=2, products=5)
        yield cls(example_prior(), steps=3, start=None, sampler="heun", eta=0.0, draws=False, products=5)
