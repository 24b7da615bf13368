"""Exponential second-order multistep, data prediction (DPM-Solver++(2M), arXiv 2211.01095, algorithm 2)."""

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
class Multistep(NoiselessSampler):
    """z' = (s'/s) z + (1 - s'/s) (clean + (clean - clean_before) h / (2 h_before)) + target - clean, h = log(s / s').

    One estimate a step. The history is that of one trajectory: pass before=None after re-noising.
    """

    name: ClassVar[str] = "multistep"
    order: ClassVar[int] = 2

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        if sigma_next == 0:
            return estimate.target, estimate
        ratio, ahead = sigma_next / sigma, estimate.clean
        if before is not None and before.sigma > sigma:
            change = estimate.clean - before.clean
            ahead = ahead + change * (-math.log(ratio) / (2 * math.log(before.sigma / sigma)))
        return ratio * z + (1 - ratio) * ahead + (estimate.target - estimate.clean), estimate

    @classmethod
    def examples(cls) -> Iterator[Multistep]:
        yield cls()
