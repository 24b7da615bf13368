"""Projector: the rays of one geometry on one grid, by one way of computing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor


class Projector(Protocol):
    """x (B, *grid.shape) -> y (B, *geometry.shape), of the dtype and on the device that came."""

    def forward(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor) -> Tensor: ...

    def subset(self, views: Sequence[int]) -> Projector:
        """These views only, sharing what has been built."""
        ...


def on_host(x: Tensor, apply: Callable[[NDArray[Any]], NDArray[Any]]) -> Tensor:
    """A function of float32 arrays on a tensor of any device and real dtype."""
    out = apply(x.detach().to("cpu", torch.float32).resolve_neg().numpy())
    return torch.from_numpy(out).to(x.device, x.dtype)
