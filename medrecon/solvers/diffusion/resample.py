"""ReSample: latent diffusion with hard data consistency (arXiv 2307.08123), in three modes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.latent import (
    LatentSpace,
    encoder_residual,
    nearby,
    pixel_error,
    polished,
    start_latent,
    unsure,
    warm_start,
)
from medrecon.diffusion.samplers.ddim import ddim_update
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.diffusion.resample_original import Original, resample_original


@dataclass(frozen=True, eq=False)
class ReSample(Solver):
    """x from y = A x + n with a latent diffusion prior.

    Modes (docs/design/resample.md has the formulas side by side):
        fast: ours. Warm start from TV, trajectories in pairs of opposite noise, encoder-residual data consistency
            whitened by the noise, variance-preserving re-noising, their mean polished in pixels: what the autoencoder
            cannot express comes from the data, and chi^2/m <= 1 as far as the error expected of it allows.
        paper: the published algorithm with Adam in pixel and latent space and stochastic resampling.
        reference: what the public reference code does, known deviations and errors included; for comparison.
    """

    prior: Prior
    mode: Literal["fast", "paper", "reference"] = "fast"
    """which algorithm"""
    steps: int = 8
    """denoising steps (fast)"""
    start: float | None = None
    """noise level at which the fast mode starts; default: the prior's own; its sigma_max means from pure noise"""
    end: float | None = None
    """noise level of its last step; default: the prior's own; for a sample, with eta = 1, its sigma_min (fast)"""
    eta: float = 0.0
    """share of fresh noise a step: 0 returns close to the posterior mean, 0.85 to 1 a sample (fast)"""
    antithetic: bool = True
    """average two trajectories with opposite noise: what the noise does to the image, to first order, cancels, so
    that two act like very many, and where they part tells where the denoiser is unsure; off returns a single
    trajectory (fast)"""
    pairs: int = 2
    """antithetic pairs, or single trajectories without `antithetic`, that are averaged; every second one in a mirror,
    where a prior trained on mirrored images errs elsewhere (fast)"""
    rounds: int = 1
    """encoder-residual updates a step (fast)"""
    cg_iterations: int = 15
    """CG iterations of every proximal problem (fast)"""
    polish: bool = True
    """finish in pixel space: with the proximal point that knows how much the autoencoder loses, and where, and where
    it is further from the data than noise, with that of chi^2/m = 1, or as near as its expected error allows (fast)"""
    original: Original = Original()
    """settings of the paper and reference modes"""

    name: ClassVar[str] = "resample"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "latent diffusion with hard data consistency (fast, paper or reference mode)"
    needs_prior: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.mode not in ("fast", "paper", "reference"):
            raise ValueError(f"ReSample: unknown mode {self.mode!r}; expected fast, paper or reference")
        levels = [level for level in (self.start, self.end) if level is not None]
        if self.steps < 1 or min(levels, default=1.0) <= 0 or self.pairs < 1:
            raise ValueError(
                f"ReSample: expected steps >= 1, start > 0, end > 0 and pairs >= 1, got {self.steps}, {self.start}, "
                f"{self.end}, {self.pairs}"
            )

    @torch.no_grad()
    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        space = LatentSpace(self.prior, A, y)
        if self.mode == "fast":
            return self._fast(A, y, space, generator, Monitor(y, self.steps * self.pairs, on_step))
        monitor = Monitor(y, self.original.steps, on_step)
        return resample_original(A, y, space, self.original, generator, monitor, reference=self.mode == "reference")

    def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
        """How the fast mode meets the data; benchmarks/oracles.py replaces it and the start by ones that know more."""
        return DataConsistency(A, y, self.cg_iterations)

    def warm_start(self, A: LinearOperator, y: Measurement, generator: torch.Generator) -> Tensor | None:
        """The image that the fast mode starts from."""
        return warm_start(self.prior, A, y, self._levels()[0], generator)

    def _fast(
        self, A: LinearOperator, y: Measurement, space: LatentSpace, generator: torch.Generator, monitor: Monitor
    ) -> Solution:
        dc, warm = self.consistency(A, y), self.warm_start(A, y, generator)
        ends: list[Tensor] = []
        for pair in range(self.pairs):
            view = space.mirrored() if pair % 2 else space
            images, variance, stopped = self._trajectories(A, y, view, dc, warm, generator, monitor)
            ends += images
            if stopped:
                break
        every = torch.stack(ends)
        x = every.mean(0)
        image = polished(space, dc, x, nearby(every.var(0)) if len(ends) > 1 else variance) if self.polish else x
        change, size = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (image - x, image))
        return monitor.solution(
            A, image, not stopped, network_calls=vars(space.calls), latent_image=x, correction=(change / size).tolist()
        )

    def _trajectories(
        self,
        A: LinearOperator,
        y: Measurement,
        space: LatentSpace,
        dc: DataConsistency,
        warm: Tensor | None,
        generator: torch.Generator,
        monitor: Monitor,
    ) -> tuple[list[Tensor], Tensor, bool]:
        """The images at the ends of a pair of reverse processes with opposite noise, or of a single one; the variance
        expected of the first; whether they were stopped."""
        z0 = start_latent(space, A, y, warm)
        error = pixel_error(space, z0, warm=warm is not None)
        sigmas, signs = self._levels(), (1.0, -1.0)[: 1 + self.antithetic]
        noise = space.noise(z0, generator)
        z = [z0 + sign * sigmas[0] * noise for sign in signs]
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = [space.denoise(each, sigma) for each in z]
            doubt = unsure(space, z, denoised) if self.antithetic else None
            expected = lambda v: error(v, sigma, doubt)  # noqa: B023, E731
            latents, x = zip(
                *(encoder_residual(space, dc, each, expected, self.rounds) for each in denoised), strict=True
            )
            noise = space.noise(z0, generator)
            # Re-noise around the consistent estimate: the total noise is exactly that of the next level.
            z = [
                ddim_update(at, found, sigma, following, self.eta, sign * noise) + (latent - found)
                for at, found, latent, sign in zip(z, denoised, latents, signs, strict=True)
            ]
            stopped = monitor(A(torch.stack(x).mean(0)))
            if stopped:
                break
        return list(x), expected(x[0]).square(), stopped

    def _levels(self) -> list[float]:
        prior, denoiser = self.prior, self.prior.denoiser
        start = min(prior.start if self.start is None else self.start, denoiser.sigma_max)
        end = max(prior.end if self.end is None else self.end, denoiser.sigma_min)
        levels: list[float] = log_uniform(self.steps, min(end, start), start).tolist()
        return levels

    @classmethod
    def examples(cls) -> Iterator[ReSample]:
        prior = example_prior()
        yield cls(prior, steps=4)
        tiny = Original(steps=12, skip=2, travel=2, pixel_iterations=5, latent_iterations=5)
        yield cls(prior, mode="paper", original=tiny)
        yield cls(prior, mode="reference", original=tiny)


def example_prior(shape: tuple[int, int] = (32, 32)) -> Prior:
    """A Gaussian prior with an identity autoencoder, for examples and tests: images of order 1."""
    denoiser = smooth_gaussian((1, *shape))
    return Prior(IdentityAutoencoder(), denoiser, Linear(-1.0, 1.0), "a.u.", "CT", error=0.0, name="example")
