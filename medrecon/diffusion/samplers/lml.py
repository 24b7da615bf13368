"""LML: DDIM along the noise that a damped rank-one Hessian corrects (arXiv 2505.24222)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NoiselessSampler
from medrecon.numerics.linalg import expand, summed


@dataclass(frozen=True)
class LML(NoiselessSampler):
    """z' = z + (s' - s) e' + target - clean, e' along e - m <m, e> / (damping |e|^2 + |m|^2) and as long as
    e = (z - clean) / s, with m = kappa e_before + (1 - kappa) e.

    To first order e' is e and kappa / damping of its last change, across it: an extrapolation, of which a second-order
    step takes half the change. The published code differs: with its kappa, 0, e' = e and all is DDIM; its damping,
    5e-5 to 8e-4, is not in units of |e|^2, and with any other kappa turns e at right angles to itself; and it takes
    e' for the noise but e for D(z), an error that does not sink with the number of steps. Its first levels without
    correction are here the first step. The history is that of one trajectory: pass before=None after re-noising.

    Raises:
        ValueError: kappa is not from 0 to below 1, or damping not positive.
    """

    kappa: float = 0.1
    damping: float = 0.2

    name: ClassVar[str] = "lml"
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.kappa < 1 or self.damping <= 0:
            raise ValueError(f"lml: expected 0 <= kappa < 1 and damping > 0, got {self.kappa:g} and {self.damping:g}")

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        if sigma_next == 0:
            return estimate.target, estimate
        noise = (z - estimate.clean) / sigma
        turned = noise
        for _, earlier in () if before is None else before.memory:
            turned = self.turned(noise, torch.lerp(noise, earlier, self.kappa))
        moved = z + (sigma_next - sigma) * turned + (estimate.target - estimate.clean)
        return moved, estimate._replace(memory=((sigma, noise),))

    def turned(self, noise: Tensor, mean: Tensor) -> Tensor:
        """Return e' of e and m, (N, C, h, w)."""
        inner = lambda a, b: expand(summed(a * b, a.ndim - 1), a.ndim - 1)  # noqa: E731
        tiny = torch.finfo(noise.dtype).tiny
        power = inner(noise, noise)
        other = noise - mean * (inner(mean, noise) / (self.damping * power + inner(mean, mean)).clamp_min(tiny))
        return other * (power / inner(other, other).clamp_min(tiny)).sqrt()

    @classmethod
    def examples(cls) -> Iterator[LML]:
        yield cls()
