"""Exponential second-order multistep, data prediction (DPM-Solver++(2M), arXiv 2211.01095, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.diffusion.samplers.base import Estimate, denoise
from medrecon.models.denoiser import Denoiser


@dataclass(frozen=True)
class Multistep:
    """z' = (s'/s) z + (1 - s'/s) (z0 + (z0 - z0_before) h / (2 h_before)), h = log(s / s'); one call a step.

    The history is only valid along one trajectory: pass previous=None after a data-consistency step or re-noising.
    """

    order: ClassVar[int] = 2
    stochastic: ClassVar[bool] = False

    def step(
        self,
        denoiser: Denoiser,
        z: Tensor,
        sigma: float,
        sigma_next: float,
        previous: Estimate | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Estimate]:
        z0 = denoise(denoiser, z, sigma)
        if sigma_next == 0:
            return z0, Estimate(z0, sigma)
        ratio = sigma_next / sigma
        target = z0
        if previous is not None:
            target = z0 + (z0 - previous.z0) * (-math.log(ratio) / (2 * math.log(previous.sigma / sigma)))
        return ratio * z + (1 - ratio) * target, Estimate(z0, sigma)

    @classmethod
    def examples(cls) -> Iterator[Multistep]:
        yield cls()
