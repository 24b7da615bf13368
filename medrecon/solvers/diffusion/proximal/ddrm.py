"""DDRM: denoising diffusion restoration models (arXiv 2201.11793)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import Sampler
from medrecon.models.prior import Prior
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.proximal.spectral import SpectralGuide, SpectralSolver


@dataclass(frozen=True)
class DDRMStep(Sampler):
    """Its eq. 7 and 8, r the deviation of a measured component over that of noise at the next level.

    A component that is not measured goes on as in DDIM. One measured more sharply than that, r <= 1, is put at
    eta_b y + (1 - eta_b) D(z) with as much noise as lacks; one measured less sharply moves sqrt(1 - eta^2) / r of the
    way to y.
    """

    eta: float
    eta_b: float

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        assert isinstance(guide, SpectralGuide)
        estimate, fresh = guide(z, sigma), draw(z)
        if not sigma_next:
            return estimate.clean, estimate
        keep, r = (1 - self.eta**2) ** 0.5, guide.ratio(sigma_next)
        sharp, seen = r <= 1, r.isfinite()
        moved = guide.moved(estimate, torch.where(sharp, self.eta_b, keep / r))
        lacking = (1 - (self.eta_b * r).square()).clamp_min(0).sqrt()
        kept = guide.filtered((z - estimate.clean) / sigma, torch.where(seen, 0, keep), keep)
        new = guide.filtered(fresh, torch.where(sharp, lacking, self.eta), self.eta)
        return moved + sigma_next * (kept + new), estimate


@dataclass(frozen=True, eq=False)
class DDRM(SpectralSolver):
    """Every step: denoise, put each component where data and noise level say, with noise of its own size.

    Raises:
        ValueError: eta or eta_b not from 0 to 1; or what `SpectralSolver` refuses.
    """

    eta: float = 0.85
    """share of fresh noise of what is not measured, or less sharply than the level"""
    eta_b: float = 1.0
    """how far sharp components are put at the data"""

    name: ClassVar[str] = "ddrm"
    summary: ClassVar[str] = "each singular component at the data or the denoised image, by which of them is sharper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise ValueError(f"DDRM: expected eta and eta_b from 0 to 1, got {self.eta:g} and {self.eta_b:g}")

    def stepper(self) -> DDRMStep:
        return DDRMStep(self.eta, self.eta_b)

    @classmethod
    def paper(cls, prior: Prior) -> DDRM:
        """Return it with the published 20 levels and shares, from pure noise; the levels are even in log sigma."""
        # From memory: the paper was not at hand.
        return cls(prior, steps=20, start=None)

    @classmethod
    def examples(cls) -> Iterator[DDRM]:
        yield cls(example_prior(), steps=4)
        yield cls(example_prior(), steps=4, samples=2, start=None, eta_b=0.8)
