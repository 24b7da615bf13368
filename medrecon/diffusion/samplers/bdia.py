"""BDIA: DDIM that looks back as well as ahead, and can be run backwards exactly (arXiv 2307.10829)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NoiselessSampler


def weight(gamma: float, sigma_before: float, sigma_next: float) -> float:
    """Return gamma alpha / alpha', alpha = (1 + sigma^2)^-1/2: the published one is of variance-preserving states."""
    return gamma * ((1 + sigma_next**2) / (1 + sigma_before**2)) ** 0.5


@dataclass(frozen=True)
class BDIA(NoiselessSampler):
    """z' = D + s' e + w (z_before - D - s_before e) + target - D, e = (z - D) / s: a DDIM step, and by how much the
    same line, drawn backwards, misses the state before (its eq. 16).

    All but z_before is a function of z, so that the step can be solved for it (`noised`). The first step, which has
    none, is DDIM. The history is that of one trajectory: pass before=None after re-noising.

    Raises:
        ValueError: gamma is not above 0, up to 1.
    """

    gamma: float = 0.5
    """of the miss; less damps what a guide does to one state alone, at the price of digits on the way back. 1 is of
    second order and loses none, but with it a guide that is not smooth, as with data, makes the states diverge"""

    name: ClassVar[str] = "bdia"
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"bdia: expected gamma above 0, up to 1, got {self.gamma:g}")

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        if sigma_next == 0:
            return estimate.target, estimate
        noise = (z - estimate.clean) / sigma
        moved = estimate.target + sigma_next * noise
        for sigma_before, z_before in () if before is None else before.memory:
            miss = z_before - estimate.clean - sigma_before * noise
            moved = moved + weight(self.gamma, sigma_before, sigma_next) * miss
        return moved, estimate._replace(memory=((sigma, z),))

    def noised(self, guide: Guide, sigmas: Sequence[float], z: Tensor, z_before: Tensor) -> tuple[Tensor, Tensor]:
        """Run back up the levels: from z (N, C, h, w) at the last of `sigmas` and z_before at the one before it.

        Whatever deterministic guide led down from the noise to them, this finds the noise again, to rounding.

        Returns:
            z at sigmas[1] and at sigmas[0].
        """
        for k in range(len(sigmas) - 2, 0, -1):
            estimate, sigma = guide(z_before, sigmas[k]), sigmas[k]
            noise = (z_before - estimate.clean) / sigma
            miss = (z - estimate.target - sigmas[k + 1] * noise) / weight(self.gamma, sigmas[k - 1], sigmas[k + 1])
            z, z_before = z_before, estimate.clean + sigmas[k - 1] * noise + miss
        return z, z_before

    @classmethod
    def examples(cls) -> Iterator[BDIA]:
        yield cls()
