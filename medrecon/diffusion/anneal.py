"""Annealed weights of the data: less than their precision says at some noise levels, for data whose model errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Anneal:
    """sigma -> share of its precision that a sample is given, from 0 to 1: (sigma / first)^power, or, of a power below
    0, (sigma / last)^power.

    Above 0, the data steer at high noise and lose their say towards the end, where the prior mends what their model got
    wrong; below 0 they gain it. 0 leaves them their own weight at all levels. The idea is that of arXiv 2602.12755,
    whose schedule may be another: only its abstract was read.
    """

    power: float = 0.0
    first: float = 1.0
    """noise level of the first step"""
    last: float = 1.0
    """noise level of the last step, above 0"""

    @classmethod
    def over(cls, power: float, levels: Sequence[float]) -> Anneal:
        """Return that of falling levels, the last of which may be 0."""
        return cls(power, levels[0], min(level for level in levels if level > 0))

    def __call__(self, sigma: float) -> float:
        return float(min(1.0, sigma / self.first if self.power >= 0 else self.last / sigma) ** abs(self.power))
