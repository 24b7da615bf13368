"""Euler's steps of the probability flow, as a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.samplers.base import NamedSampler


@dataclass(frozen=True)
class ToyEuler(NamedSampler):
    """z' = target + (sigma' / sigma) (z - clean)."""

    name: ClassVar[str] = "toy"
    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        return False

    @classmethod
    def with_noise(cls, eta: float) -> ToyEuler:
        if eta:
            raise ValueError(f"toy: adds no noise, expected eta 0, got {eta:g}")
        return cls()

    def step(
        self, guide: Guide, z: Tensor, sigma: float, sigma_next: float, before: Estimate | None, draw: Draw
    ) -> tuple[Tensor, Estimate]:
        estimate = guide(z, sigma)
        return estimate.target + sigma_next / sigma * (z - estimate.clean), estimate

    @classmethod
    def examples(cls) -> Iterator[ToyEuler]:
        yield cls()
