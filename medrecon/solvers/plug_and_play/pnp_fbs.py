"""PnP-FBS: a denoiser in forward-backward splitting (arXiv 1902.00545), also called PnP-ISTA or PnP-PGM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from medrecon.numerics.linalg import expand
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.plug_and_play.base import Bench, Images, PlugAndPlay


@dataclass(frozen=True, eq=False)
class PnPFBS(PlugAndPlay):
    """v = x - g grad(-log p(y | x)), x = v + (g / sigma^2) (D(v) - v), g = min(step / curvature, sigma^2).

    A gradient step of g calls for a denoiser of variance g. Where the data allow a step of sigma^2 that is D itself, as
    published; where they are more exact, the denoiser moves the image by that share of its way.
    """

    iterations: int = 200
    step: float = 1.0
    """of the gradient, in units of 1 / curvature, below 2"""

    name: ClassVar[str] = "pnp-fbs"
    summary: ClassVar[str] = "plug-and-play forward-backward splitting: a gradient step of the data, a denoiser"
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < 2:
            raise ValueError(f"pnp-fbs: expected step above 0 and below 2, where it diverges, got {self.step}")

    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        length = (self.step / bench.curvature).clamp_max(self.sigma**2)
        v = bench.descended(images[0], length)
        return (v + expand(length / self.sigma**2, v.ndim - 1) * (bench.denoised(v, self.sigma) - v),)

    @classmethod
    def examples(cls) -> Iterator[PnPFBS]:
        yield cls(example_prior(), iterations=4)
