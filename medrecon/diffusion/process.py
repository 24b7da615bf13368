"""Process: how a network's noise was added, as a change of variables to the one the engine runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Process:
    """x_t = a_t x0 + b_t mu + s_t n at times t = 0 .. T-1, noise rising; mu is an image the process drifts to.

    The engine runs in z = x0 + sigma n. The two are one: z = (x_t - b_t mu) / a_t at sigma_t = s_t / a_t, so that every
    guide and sampler serves every process. a, b and s (T,) are float64.

    Raises:
        ValueError: coefficients of another type or length, a or s not positive, or sigma not rising.
    """

    a: Tensor
    b: Tensor
    s: Tensor

    def __post_init__(self) -> None:
        parts = (self.a, self.b, self.s)
        if any(p.dtype != torch.float64 or p.ndim != 1 or len(p) != len(self.a) for p in parts):
            raise ValueError("Process: a, b and s must be float64 vectors of one length")
        if bool((self.a <= 0).any()) or bool((self.s <= 0).any()) or bool((self.sigma.diff() <= 0).any()):
            raise ValueError("Process: expected a > 0, s > 0 and s / a rising")

    @classmethod
    def variance_exploding(cls, sigmas: Tensor) -> Process:
        """Return x_t = x0 + sigma_t n (arXiv 2011.13456), the engine's own; sigmas (T,) rising."""
        return cls(torch.ones_like(sigmas), torch.zeros_like(sigmas), sigmas)

    @classmethod
    def variance_preserving(cls, abar: Tensor) -> Process:
        """Return x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n (arXiv 2006.11239); abar (T,) falling."""
        return cls(abar.sqrt(), torch.zeros_like(abar), (1 - abar).sqrt())

    @classmethod
    def rectified_flow(cls, times: Tensor) -> Process:
        """Return x_t = (1 - t) x0 + t n (arXiv 2209.03003); times (T,) rising within (0, 1)."""
        return cls(1 - times, torch.zeros_like(times), times)

    @property
    def sigma(self) -> Tensor:
        """The noise levels of the engine, (T,) float64."""
        return self.s / self.a

    def state(self, x0: Tensor, noise: Tensor, t: int, mu: Tensor | float = 0.0) -> Tensor:
        """Return x_t of x0 and n."""
        return self.from_engine(x0 + float(self.sigma[t]) * noise, t, mu)

    def to_engine(self, x: Tensor, t: int, mu: Tensor | float = 0.0) -> Tensor:
        """Return z = (x_t - b_t mu) / a_t."""
        return (x - float(self.b[t]) * mu) / float(self.a[t])

    def from_engine(self, z: Tensor, t: int, mu: Tensor | float = 0.0) -> Tensor:
        """Return x_t = a_t z + b_t mu."""
        return float(self.a[t]) * z + float(self.b[t]) * mu
