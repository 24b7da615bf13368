"""Value maps: physical values <-> the range a network works in. Each is invertible and differentiable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class ValueMap(Protocol):
    """u = f(x), x = f^-1(u), elementwise; `low` and `high` bound the physical values the prior knows."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...

    def forward(self, x: Tensor) -> Tensor: ...
    def inverse(self, u: Tensor) -> Tensor: ...

    def derivative(self, u: Tensor) -> Tensor:
        """Return dx/du at u: how far an error of the network carries in physical values."""
        ...


@dataclass(frozen=True)
class Asinh:
    """u = asinh((x - center) / knee) / gain: soft tissue keeps its bits, bone and air are compressed.

    Values outside [low, high] are clipped on the way in; the way out is unclipped, so it stays differentiable.
    """

    center: float = 30.0
    knee: float = 200.0
    gain: float = 3.0
    low: float = -1024.0
    high: float = 3071.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.asinh((x.clamp(self.low, self.high) - self.center) / self.knee) / self.gain

    def inverse(self, u: Tensor) -> Tensor:
        return torch.sinh(u.clamp(-2.0, 2.0) * self.gain) * self.knee + self.center

    def derivative(self, u: Tensor) -> Tensor:
        return torch.cosh(u.clamp(-2.0, 2.0) * self.gain) * self.gain * self.knee


@dataclass(frozen=True)
class Linear:
    """u = 2 (x - low) / (high - low) - 1, not clipped: values a little above `high` are legal.

    With low = -high it is one scale, u = x / high, for complex values too.
    """

    low: float = 0.0
    high: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x - self.low) / (self.high - self.low) - 1

    def inverse(self, u: Tensor) -> Tensor:
        return (u + 1) / 2 * (self.high - self.low) + self.low

    def derivative(self, u: Tensor) -> Tensor:
        return torch.full_like(u.real, (self.high - self.low) / 2)
