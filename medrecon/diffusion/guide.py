"""Guide: what a method makes of a noisy latent, at one noise level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self, final

from torch import Tensor


class Estimate(NamedTuple):
    """What is known at one noise level of N = K B items: K trajectories of B items each, trajectory after trajectory.

    A sampler keeps the noise it finds, z - `clean`, and lets it sink around `target`. Without data both are D(z); a
    method that moves the denoised latent towards the data returns the moved one as `target`; one that knows
    E[z0 | z, y], and so the score of the posterior, returns it as both.
    """

    clean: Tensor
    """E[z0 | z], (N, C, h, w)"""
    target: Tensor
    """the same, made to agree with the data"""
    image: Tensor | None
    """what to show for it, (N, *in_shape) in image units; None: nothing to show at this level"""
    sigma: float
    """the noise level"""
    log_weight: Tensor | None = None
    """of each item, (N,), for particle methods"""
    memory: tuple[tuple[float, Tensor], ...] = ()
    """what a sampler of several steps keeps of the steps before: noise levels and what it had there, the last first"""
    split: tuple[Tensor, ...] = ()
    """what a guide of several steps keeps of the step before, such as the split and dual variables of ADMM"""


class Guide(ABC):
    """(z, sigma) -> Estimate. It remembers nothing from call to call; one that is random draws from the run's Draw."""

    @abstractmethod
    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        """Estimate z0 of z = z0 + sigma n, z (N, C, h, w) or of any other item shape."""

    def after(self, before: Estimate | None) -> Self:
        """Return the guide of the step that follows the estimate `before`; of most methods that is the same one."""
        return self


@final
@dataclass(frozen=True)
class Unconditional(Guide):
    """Knows the prior and no data: samples of the prior itself."""

    denoise: Callable[[Tensor, float], Tensor]
    """(z, sigma) -> D(z, sigma)"""

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.denoise(z, sigma)
        return Estimate(clean, clean, None, sigma)
