"""Exponential third-order multistep, data prediction (DPM-Solver++, arXiv 2211.01095; MR Sampler, arXiv 2502.07856)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NoiselessSampler


@dataclass(frozen=True)
class Exponential(NoiselessSampler):
    """dz/dl = D - z over l = -log sigma, solved exactly for the parabola through the last three D:

    z' = e^-h z + p1 D + p2 D' + p3 D'', p_k the integral of e^(t - h) t^(k-1) / (k-1)! from 0 to h = log(s / s').

    One estimate a step; the first, which has no history, takes two (exponential Heun), or all would be of second order.
    The second step knows two D and is the ODE-2 of the MR sampler: a mean-reverting state is z in other variables
    (`Process`). The history is that of one trajectory: pass before=None after re-noising.
    """

    name: ClassVar[str] = "exponential"
    order: ClassVar[int] = 3

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        if sigma_next == 0:
            return estimate.target, estimate
        h = math.log(sigma / sigma_next)
        p1 = -math.expm1(-h)
        p2 = h - p1
        p3 = h**2 / 2 - p2
        clean, moved = estimate.clean, math.exp(-h) * z + p1 * estimate.clean
        if before is None:
            moved = moved + p2 / h * (guide(moved, sigma_next).clean - clean)
            return moved + (estimate.target - clean), estimate
        last = math.log(before.sigma / sigma)
        slope = (clean - before.clean) / last
        moved = moved + p2 * slope
        for earlier, D in before.memory:
            span = math.log(earlier / before.sigma)
            bend = (slope - (before.clean - D) / span) / (last + span)
            moved = moved + (p2 * last + 2 * p3) * bend
        return moved + (estimate.target - clean), estimate._replace(memory=((before.sigma, before.clean),))

    @classmethod
    def examples(cls) -> Iterator[Exponential]:
        yield cls()
