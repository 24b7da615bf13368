"""PiGDM: pseudoinverse-guided diffusion (Song et al., ICLR 2023), with the noise and the decoder in its covariance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError, one_number
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver

LEAST = 0.03
"""of the expected deviation: a residual that happens to be within the noise does not make an image exact"""


@dataclass(frozen=True, eq=False)
class PiGDMGuide(Guide):
    """E[z0 | z, y] = D(z) + sigma^2 J^H A^H (A tau^2 A^H + W^-1)^-1 (y - A x), J = dx/dz (its eq. 7).

    That is Tweedie's formula for the posterior, with x(z) taken as Gaussian of deviation tau; exact if it is.
    """

    space: LatentSpace
    data: DataConsistency
    error: PixelError

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean, x, back = self.space.pulled(z, sigma)
        expected = self.error(x, sigma, None)
        tau = torch.maximum(self.data.deviation(self.data.A(x), expected), LEAST * expected)
        score = back(self.data.score(x, one_number(tau)))
        known = clean + sigma**2 * score
        return Estimate(known, known, self.space.decode(known), sigma)


@dataclass(frozen=True, eq=False)
class PiGDM(PosteriorSolver):
    """Every step: the score of the posterior, the denoiser's error taken as Gaussian.

    Published with sigma^2 / (1 + sigma^2) for its variance, which is that of white images and far too much for any
    other. Here that is the most it can be, and its size is read off the residual (`DataConsistency.deviation`).
    """

    steps: int = 12
    start: float | None = 1.6
    end: float | None = 0.25
    samples: int = 4
    eta: float = 0.5
    """share of fresh noise; published with 1"""
    cg_iterations: int = 15
    """of the inverse, where the operator knows no closed form"""

    name: ClassVar[str] = "pigdm"
    summary: ClassVar[str] = "pseudoinverse-guided diffusion: the score of the posterior, errors taken as Gaussian"
    slow: ClassVar[bool] = True

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        return DataConsistency(A, y, self.cg_iterations)

    def guide(self, task: Task) -> PiGDMGuide:
        return PiGDMGuide(task.space, task.data, self.error(task))

    @classmethod
    def paper(cls, prior: Prior) -> PiGDM:
        """Return it with the published number of levels, from pure noise."""
        return cls(prior, steps=100, start=None, end=None, samples=1, eta=1.0)

    @classmethod
    def examples(cls) -> Iterator[PiGDM]:
        yield cls(example_prior(), steps=4, samples=2)
