"""PnP-ADMM: a denoiser in alternating directions (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.plug_and_play.base import Bench, Images, PlugAndPlay


@dataclass(frozen=True, eq=False)
class PnPADMM(PlugAndPlay):
    """x = prox(v - u), v = D(x + u), u = u + x - v.

    Both halves take the image to be known to sigma, so that a denoiser which is the proximal point of a prior, as that
    of a Gaussian is, ends at the most probable image, whatever sigma: it changes speed alone.
    """

    sigma: float = 0.3
    """noise level of the denoiser, in deviations of what it works on"""

    name: ClassVar[str] = "pnp-admm"
    summary: ClassVar[str] = "plug-and-play ADMM: denoiser and data in alternating directions"

    def start(self, bench: Bench, x: Tensor) -> Images:
        return x, x, torch.zeros_like(x)

    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        _, v, u = images
        x = bench.prox(v - u, self.sigma)
        v = bench.denoised(x + u, self.sigma)
        return x, v, u + x - v

    @classmethod
    def examples(cls) -> Iterator[PnPADMM]:
        yield cls(example_prior(), iterations=4)
