"""RED: regularisation by denoising (arXiv 1611.02862), by its fixed-point iteration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.plug_and_play.base import Bench, Images, PlugAndPlay


@dataclass(frozen=True, eq=False)
class RED(PlugAndPlay):
    """x = prox(D(x)), the published section 5.1 with the weight 1 / sigma^2.

    It ends where grad -log p(y | x) = (D(x) - x) / sigma^2, which is the score of the prior blurred by sigma (Tweedie):
    at the most probable image, for small sigma, in as many more iterations.
    """

    iterations: int = 100
    """at most"""
    sigma: float = 0.3
    """noise level of the denoiser, in deviations of what it works on"""

    name: ClassVar[str] = "red"
    summary: ClassVar[str] = "regularisation by denoising: the denoised image, met by the data, again and again"
    slow: ClassVar[bool] = True

    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        return (bench.prox(bench.denoised(images[0], self.sigma), self.sigma),)

    @classmethod
    def examples(cls) -> Iterator[RED]:
        yield cls(example_prior(), iterations=4)
