"""DPIR: half-quadratic splitting with a denoiser whose noise level falls (arXiv 2008.13751)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.schedules import log_uniform
from medrecon.models.prior import Prior
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.plug_and_play.base import Bench, Images, PlugAndPlay


@dataclass(frozen=True, eq=False)
class DPIR(PlugAndPlay):
    """x = prox(z) to sigma_k / sqrt(weight), z = D(x) at sigma_k, falling from `high` to `sigma`; the image is z."""

    iterations: int = 24
    sigma: float = 0.05
    """last noise level of the denoiser"""
    high: float = 0.5
    """first noise level"""
    weight: float = 0.23
    """lambda of the denoised image against the data, the published value"""
    tolerance: float = 0.0
    """the schedule is run to its end"""

    name: ClassVar[str] = "dpir"
    summary: ClassVar[str] = "plug-and-play half-quadratic splitting, the denoiser's noise level falling"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight > 0 or not self.sigma <= self.high <= self.prior.denoiser.sigma_max:
            raise ValueError(
                f"dpir: expected weight > 0 and high from sigma to the prior's {self.prior.denoiser.sigma_max:g}, got "
                f"{self.weight}, {self.high}"
            )

    def start(self, bench: Bench, x: Tensor) -> Images:
        return (x,)

    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        sigma = float(log_uniform(self.iterations, self.sigma, self.high)[index])
        x = bench.prox(images[0], sigma / self.weight**0.5)
        return (bench.denoised(x, sigma),)

    @classmethod
    def paper(cls, prior: Prior) -> DPIR:
        """Return it with the published number of iterations for deblurring, from 49 to 2.55 of 255 grey values."""
        return cls(prior, iterations=8, high=2 * 49 / 255, sigma=2 * 2.55 / 255)

    @classmethod
    def examples(cls) -> Iterator[DPIR]:
        yield cls(example_prior(), iterations=4)
