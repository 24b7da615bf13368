"""ReSample: latent diffusion with hard data consistency (arXiv 2307.08123), in three modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.measurement import Measurement
from medrecon.models.base import Prior
from medrecon.models.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.values import Linear
from medrecon.operators.base import LinearOperator
from medrecon.samplers.ddim import ddim_update
from medrecon.samplers.schedule import log_uniform
from medrecon.solvers.base import Monitor, OnStep, Solution
from medrecon.solvers.consistency import DataConsistency
from medrecon.solvers.latent import (
    LatentSpace,
    PixelError,
    encoder_residual,
    nearby,
    pixel_error,
    polished,
    start_latent,
    warm_start,
)
from medrecon.solvers.resample_original import Original, resample_original


@dataclass(frozen=True, eq=False)
class ReSample:
    """x from y = A x + n with a latent diffusion prior.

    Modes (docs/resample.md has the formulas side by side):
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
    eta: float = 0.0
    """share of fresh noise a step: 0 returns close to the posterior mean, 0.85 to 1 a sample (fast)"""
    antithetic: bool = True
    """average two trajectories with opposite noise: what the noise does to the image, to first order, cancels, so
    that two act like very many; off returns a single trajectory (fast)"""
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
        if self.steps < 1 or (self.start is not None and self.start <= 0) or self.pairs < 1:
            raise ValueError(
                f"ReSample: expected steps >= 1, start > 0 and pairs >= 1, got {self.steps}, {self.start}, {self.pairs}"
            )

    @torch.no_grad()
    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        space = LatentSpace(self.prior, A, y)
        if self.mode == "fast":
            trajectories = self.pairs * (1 + self.antithetic)
            return self._fast(A, y, space, generator, Monitor(y, self.steps * trajectories, on_step))
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
        stopped = False
        for pair in range(self.pairs):
            view = space.mirrored() if pair % 2 else space
            z = start_latent(view, A, y, warm)
            error, state = pixel_error(view, z, warm=warm is not None), generator.get_state()
            for sign in (1.0, -1.0)[: 1 + self.antithetic]:
                generator.set_state(state)  # the twin sees the same noise, negated
                noise = lambda like: sign * space.noise(like, generator)  # noqa: B023, E731
                if not stopped:
                    x, stopped = self._trajectory(A, view, dc, z, noise, error, monitor)
                    ends.append(x)
            if stopped:
                break
        every = torch.stack(ends)
        x, alone = every.mean(0), len(ends) == 1
        variance = (3 * error(x, self._levels()[-1])).square() if alone else nearby(every.var(0))
        image = polished(space, dc, x, variance) if self.polish else x
        change, size = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (image - x, image))
        return monitor.solution(A, image, not stopped, network_calls=vars(space.calls),
                                latent_image=x, correction=(change / size).tolist())  # fmt: skip

    def _trajectory(
        self, A: LinearOperator, space: LatentSpace, dc: DataConsistency, z: Tensor, noise: Callable[[Tensor], Tensor],
        error: PixelError, monitor: Monitor,
    ) -> tuple[Tensor, bool]:  # fmt: skip
        """The image at the end of the reverse process from z and the first level's noise; whether it was stopped."""
        sigmas = self._levels()
        z = z + sigmas[0] * noise(z)
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = space.denoise(z, sigma)
            latent, x = encoder_residual(space, dc, denoised, lambda v: error(v, sigma), self.rounds)  # noqa: B023
            # Re-noise around the consistent estimate: the total noise is exactly that of the next level.
            z = ddim_update(z, denoised, sigma, following, self.eta, noise(z)) + (latent - denoised)
            stopped = monitor(A(x))
            if stopped:
                break
        return x, stopped

    def _levels(self) -> list[float]:
        denoiser = self.prior.denoiser
        start = min(self.prior.start if self.start is None else self.start, denoiser.sigma_max)
        levels: list[float] = log_uniform(self.steps, denoiser.sigma_min, start).tolist()
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
