"""PSLD: posterior sampling with latent diffusion (arXiv 2307.00619), DPS and a gluing term."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import expand
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


@dataclass(frozen=True, eq=False)
class PSLDGuide(Guide):
    """A step down -log p(y | x(z)) + gluing |z0 - E(x')|^2 / 2, x' being x(z) a step nearer to the data (its eq. 6).

    The published x' = A^T y + (I - A^T A) x is that step for an operator of norm 1. The term asks for a latent that the
    encoder would give of an image which meets the data: of all latents that decode to nearly the same.
    """

    space: LatentSpace
    data: DataConsistency
    size: Tensor
    """of an image for a latent of deviation 1, (N, H, W)"""
    length: Tensor
    """of a step far from the data at sigma = 0, (N,)"""
    gluing: float

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean, through = self.space.denoised(z, sigma)
        x, back = self.space.decoded(clean)
        beyond = 1 - 1 / self.data.chi2(self.data.A(x)).sqrt().clamp_min(1)
        down = expand(self.length * beyond, z.ndim - 1) * back(self.data.gradient(x))
        target = clean - (1 + sigma**2) * through(down + self.gluing * self.unglued(clean))
        return Estimate(clean, target, self.space.decode(target), sigma)

    def unglued(self, clean: Tensor) -> Tensor:
        """Return the gradient of the gluing term by z0, through decoder, data and encoder."""
        with torch.enable_grad():
            z0 = clean.detach().requires_grad_(True)
            x = self.space.decode(z0)
            scale = expand(self.length, x.ndim - 1) * self.size.square() / self.data.parts
            term = (z0 - self.space.encode(x - scale * self.data.gradient(x))).square().sum() / 2
            (gradient,) = torch.autograd.grad(term, z0)
        return gradient


@dataclass(frozen=True, eq=False)
class PSLD(PosteriorSolver):
    """DPS in the latent, with a term that holds latents where encoder and decoder undo each other.

    Both steps are in units of the noise: that of the data over the curvature of -log p(y | x), that of the gluing term
    over that of a latent of deviation 1.
    """

    eta: float = 1.0
    """share of fresh noise"""
    step: float = 1.0
    """of the data's gradient, in units of 1 / curvature"""
    gluing: float = 0.1
    """of the gluing term, the published share of the data's"""

    name: ClassVar[str] = "psld"
    summary: ClassVar[str] = "latent diffusion posterior sampling: DPS and a term that keeps the latent one of an image"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step <= 0 or self.gluing < 0:
            raise ValueError(f"PSLD: expected step > 0 and gluing >= 0, got {self.step}, {self.gluing}")

    def guide(self, task: Task) -> PSLDGuide:
        size = self.error(task).size
        return PSLDGuide(task.space, task.data, size, task.data.length(self.step, size), self.gluing)

    @classmethod
    def paper(cls, prior: Prior) -> PSLD:
        """Return it with the published number of levels, from pure noise; the steps stay in units of the noise."""
        return cls(prior, steps=1000, start=None)

    @classmethod
    def examples(cls) -> Iterator[PSLD]:
        yield cls(example_prior(), steps=4, start=None, samples=2)
