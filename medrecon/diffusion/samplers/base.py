"""Sampler: one step of a reverse process, composed with any denoiser and any schedule.

Everything is in variance-exploding units, z = z0 + sigma n. A variance-preserving state is x = alpha z with
alpha = (1 + sigma^2)^-1/2, so the steps below are the usual VP ones after division by alpha.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from medrecon.models.denoiser import Denoiser


class Estimate(NamedTuple):
    """The denoised z0 (B, C, h, w) and the noise level it was made at."""

    z0: Tensor
    sigma: float


class Sampler(Protocol):
    """step: z at sigma -> z at sigma_next < sigma, and the estimate made at sigma.

    `previous` is the estimate of the step before, None at the first; `sigma_next` = 0 gives z0 itself.
    """

    @property
    def order(self) -> int:
        """Order of convergence of the deterministic part, proved against the Gaussian oracle."""
        ...

    @property
    def stochastic(self) -> bool: ...

    def step(
        self,
        denoiser: Denoiser,
        z: Tensor,
        sigma: float,
        sigma_next: float,
        previous: Estimate | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Estimate]: ...

    @classmethod
    def examples(cls) -> Iterator[Sampler]:
        """Settings the contract tests run."""
        ...


def denoise(denoiser: Denoiser, z: Tensor, sigma: float) -> Tensor:
    """D(z, sigma) with sigma clamped into the range the denoiser knows."""
    level = min(max(sigma, denoiser.sigma_min), denoiser.sigma_max)
    return denoiser(z, torch.full((len(z),), level, dtype=z.dtype, device=z.device))


def sample(denoiser: Denoiser, sampler: Sampler, z: Tensor, sigmas: Tensor, generator: torch.Generator) -> Tensor:
    """Run a sampler along falling noise levels; z starts at sigmas[0]."""
    previous: Estimate | None = None
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        z, previous = sampler.step(denoiser, z, sigma, following, previous, generator)
    return z
