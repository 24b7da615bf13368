"""RED-diff: the image regularised by denoising, from high noise to low (arXiv 2305.04391), by Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.derivatives import check_finite
from medrecon.diffusion.draw import Independent
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.schedules import log_uniform
from medrecon.diffusion.trust import PixelError, latent_deviation
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.variational.tv import TV


@dataclass(frozen=True, eq=False)
class REDDiff(Solver):
    """Adam on the latent mu, a step a level, along grad -log p(y | mu) + weight (mu - D(mu + sigma n)).

    Published with one weight for all levels, found for each task. Here it is one over the denoiser's error,
    1 / (sigma^2 / (1 + sigma^2)), beside data whitened by their noise: for small sigma that is minus the score of the
    prior, so that a Gaussian ends at its posterior mean. Steps fall to 0, or mu would follow the noise n about.

    Raises:
        ValueError: a setting not positive.
    """

    prior: Prior
    steps: int = 200
    """denoiser calls"""
    rate: float = 0.03
    """of Adam at the first step, in deviations of the latent"""
    decay: bool = True
    """steps fall to 0, as a line"""
    weight: float | None = None
    """of the prior, as published the same at all levels, over the curvature of the data's misfit; default: what the
    denoiser's error says"""
    start: float | None = 0.5
    """first noise level, from the TV reconstruction; None: the prior's sigma_max, from 0"""
    end: float = 0.03
    """last noise level"""

    name: ClassVar[str] = "red-diff"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "regularisation by a diffusion denoiser, an optimiser over the image; a point, no sample"
    slow: ClassVar[bool] = True
    needs_prior: ClassVar[bool] = True

    def __post_init__(self) -> None:
        wanted = (self.steps, self.rate, self.end, *(v for v in (self.weight, self.start) if v is not None))
        if min(wanted) <= 0:
            raise ValueError(f"REDDiff: expected steps, rate, weight, start and end > 0, got {wanted}")

    @torch.no_grad()
    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        space, data, draw = LatentSpace(self.prior, A, y), DataConsistency(A, y), Independent(generator)
        sigmas, monitor = self.levels(), Monitor(y, self.steps, on_step)
        mu = space.encode(A.adjoint(y.data) if self.start is None else TV()(A, y, generator=generator).image)
        mu = torch.zeros_like(mu) if self.start is None else mu
        adam = torch.optim.Adam([mu], betas=(0.9, 0.99))
        weights = self.weights(space, data, mu)
        for k, sigma in enumerate(sigmas):
            x, back = space.decoded(mu)
            error = mu - space.denoise(mu + sigma * draw(mu), sigma)
            mu.grad = back(data.gradient(x)) + weights(sigma) * error
            check_finite(mu.grad, f"noise level {sigma:.3g}, step {k + 1} of {self.steps}: the gradient")
            adam.param_groups[0]["lr"] = self.rate * (1 - k / self.steps if self.decay else 1)
            adam.step()
            if monitor(A(x)):
                break
        done = len(monitor.residuals) == self.steps
        return monitor.solution(A, space.decode(mu), done, network_calls=vars(space.calls))

    def levels(self) -> list[float]:
        """Return the falling noise levels."""
        denoiser = self.prior.denoiser
        high = denoiser.sigma_max if self.start is None else min(self.start, denoiser.sigma_max)
        sigmas: list[float] = log_uniform(self.steps, min(max(self.end, denoiser.sigma_min), high), high).tolist()
        return sigmas[:-1]

    def weights(self, space: LatentSpace, data: DataConsistency, mu: Tensor) -> Callable[[float], Tensor | float]:
        """Return the weight of the prior at a level, beside whitened data."""
        if self.weight is None:
            return lambda sigma: latent_deviation(sigma) ** -2
        curvature = data.curvature(PixelError.around(space, mu, warm=False).isotropic.size)
        fixed = self.weight * expand(curvature, mu.ndim - 1)
        return lambda sigma: fixed

    @classmethod
    def paper(cls, prior: Prior) -> REDDiff:
        """Return it with the published settings, from pure noise, its steps all alike."""
        return cls(prior, steps=1000, rate=0.1, decay=False, weight=0.25, start=None, end=prior.denoiser.sigma_min)

    @classmethod
    def examples(cls) -> Iterator[REDDiff]:
        yield cls(example_prior(), steps=5, start=None)
        yield cls(example_prior(), steps=3, start=None, weight=0.25, decay=False)
