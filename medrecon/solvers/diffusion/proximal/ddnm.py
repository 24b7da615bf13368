"""DDNM and DDNM+: the null space from a denoiser, the range from the data (arXiv 2212.00490)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import Sampler
from medrecon.models.prior import Prior
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.proximal.spectral import SpectralGuide, SpectralSolver


@dataclass(frozen=True)
class DDNMStep(Sampler):
    """z' = a x + b z + noise, x = D(z) - S A^+ (A D(z) - y): its eq. 17 to 19 for each singular component.

    a = 1 - (s'/s)^2 and b = (s'/s)^2 are those of q(z' | z, x), whose deviation is p = s' sqrt(a). A measured component
    of x has noise of deviation e; the share S = min(1, p / (a e)) of the way there brings as much noise as p holds,
    and what lacks is added. Without noise e = 0, S = 1: DDNM.

    Time travel (its section 3.3) puts noise back up to s and steps again, so that what is measured and what is not come
    to agree.
    """

    repeats: int

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        assert isinstance(guide, SpectralGuide)
        lower, estimate = self.once(guide, z, sigma, sigma_next, draw)
        for _ in range(self.repeats - 1 if sigma_next else 0):
            again = lower + (sigma**2 - sigma_next**2) ** 0.5 * draw(z)
            lower, estimate = self.once(guide, again, sigma, sigma_next, draw)
        return lower, estimate

    def once(
        self, guide: SpectralGuide, z: Tensor, sigma: float, sigma_next: float, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        """Take one step."""
        estimate, fresh = guide(z, sigma), draw(z)
        if not sigma_next:
            return estimate.clean, estimate
        b = (sigma_next / sigma) ** 2
        a = 1 - b
        p = sigma_next * a**0.5
        share = (1 / (a * guide.ratio(p))).clamp_max(1)
        brought = (a * guide.ratio(p)).nan_to_num(posinf=0).clamp_max(1)
        noise = guide.filtered(fresh, (1 - brought.square()).sqrt(), 1.0)
        return a * guide.moved(estimate, share) + b * z + p * noise, estimate


@dataclass(frozen=True, eq=False)
class DDNM(SpectralSolver):
    """Every step: denoise, put the measured components in place as far as their noise allows, an ancestral step.

    Raises:
        ValueError: no repeats; or what `SpectralSolver` refuses.
    """

    repeats: int = 3
    """how often each step is taken, with the noise put back in between: time travel of one level"""

    name: ClassVar[str] = "ddnm"
    summary: ClassVar[str] = "null space from the denoiser, range from the data as far as their noise allows (DDNM+)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeats < 1:
            raise ValueError(f"DDNM: expected repeats >= 1, got {self.repeats}")

    def stepper(self) -> DDNMStep:
        return DDNMStep(self.repeats)

    @classmethod
    def paper(cls, prior: Prior) -> DDNM:
        """Return it with the published number of levels, from pure noise; the levels are even in log sigma."""
        # From memory: the paper was not at hand.
        return cls(prior, steps=100, start=None, repeats=1)

    @classmethod
    def examples(cls) -> Iterator[DDNM]:
        yield cls(example_prior(), steps=4)
        yield cls(example_prior(), steps=4, samples=2, start=None)
