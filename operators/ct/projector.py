"""Projector: the rays of one geometry on one grid, by one way of computing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor


class Projector(Protocol):
    """x (B, *grid.shape) -> y (B, *geometry.shape), of the dtype and on the device that came; TypeError for
    float64 where that would be rounded."""

    def forward(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor) -> Tensor: ...

    def subset(self, views: Sequence[int]) -> Projector:
        """Return these views only, sharing what has been built."""
        ...


class Rays(Protocol):
    """Tables of the rays of a scan."""

    def subset(self, views: Sequence[int]) -> Self: ...


R = TypeVar("R", bound=Rays)


@dataclass(frozen=True)
class CompiledProjector(Generic[R]):
    """A projector by compiled loops on the CPU, float32, with the exact adjoint.

    Attributes:
        ahead, back: arrays (B, ...) through the rays, to (B, *geometry.shape) and to (B, *shape).
    """

    rays: R
    shape: tuple[int, ...]
    ahead: Callable[[NDArray[Any], R], NDArray[Any]]
    back: Callable[[NDArray[Any], R, Any], NDArray[Any]]

    def forward(self, x: Tensor) -> Tensor:
        return _on_host(x, lambda host: self.ahead(host, self.rays))

    def adjoint(self, y: Tensor) -> Tensor:
        return _on_host(y, lambda host: self.back(host, self.rays, self.shape))

    def subset(self, views: Sequence[int]) -> CompiledProjector[R]:
        return replace(self, rays=self.rays.subset(views))


def check_precision(x: Tensor, engine: str, others: str) -> None:
    """Raise TypeError for float64, which an engine of float32 would round without a word."""
    if x.dtype == torch.float64:
        raise TypeError(
            f"CTOperator: {engine} computes in float32, and the data are float64; give data.float(), or take {others}"
        )


def _on_host(x: Tensor, apply: Callable[[NDArray[Any]], NDArray[Any]]) -> Tensor:
    """A function of float32 arrays on a tensor of any device."""
    check_precision(x, "backend 'joseph'", "backend='auto' or 'torch'")
    out = apply(x.detach().to("cpu", torch.float32).resolve_neg().numpy())
    return torch.from_numpy(out).to(x.device, x.dtype)
