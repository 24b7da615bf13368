"""PnP-ADMM: a denoiser in alternating directions (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.schedules import log_uniform
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.plug_and_play.base import Bench, Images, PlugAndPlay


@dataclass(frozen=True, eq=False)
class PnPADMM(PlugAndPlay):
    """x = prox(v - u), v = D(x + u), u = u + x - v.

    Both halves take the image to be known to sigma, so that a denoiser which is the proximal point of a prior, as that
    of a Gaussian is, ends at the most probable image, whatever sigma: it changes speed alone. Where the level falls, u,
    which is the multiplier times sigma^2, falls with its square.

    Raises:
        ValueError: as all of these; or `high` below sigma or above what the denoiser knows.
    """

    sigma: float = 0.3
    """noise level of the denoiser, in deviations of what it works on"""
    high: float | None = None
    """noise level of the first iteration, falling evenly in its logarithm to sigma in the last; default: sigma"""

    name: ClassVar[str] = "pnp-admm"
    summary: ClassVar[str] = "plug-and-play ADMM: denoiser and data in alternating directions"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high is not None and not self.sigma <= self.high <= self.prior.denoiser.sigma_max:
            raise ValueError(
                f"{self.name}: expected high from sigma, {self.sigma:g}, to the prior's "
                f"{self.prior.denoiser.sigma_max:g}, got {self.high}"
            )

    @cached_property
    def levels(self) -> list[float]:
        """The noise level of every iteration."""
        high = self.sigma if self.high is None else self.high
        return log_uniform(self.iterations, self.sigma, high)[:-1].tolist()

    def start(self, bench: Bench, x: Tensor) -> Images:
        return x, x, torch.zeros_like(x)

    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        _, v, u = images
        sigma, before = self.levels[index], self.levels[max(index - 1, 0)]
        u = u * (sigma / before) ** 2
        x = bench.prox(v - u, sigma)
        v = bench.denoised(x + u, sigma)
        return x, v, u + x - v

    @classmethod
    def examples(cls) -> Iterator[PnPADMM]:
        yield cls(example_prior(), iterations=4)
        yield cls(example_prior(), iterations=4, high=1.0)
