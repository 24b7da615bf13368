"""OnDisk: a tensor whose values stay where they are stored until its slices are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Read = Callable[[int, int], Tensor]
"""Gives items start..stop-1 of the first axis."""


class OnDisk(Tensor):
    """A tensor (Z, ...) of which `x[z]`, `x[a:b]` and iteration read those items alone.

    Whatever else is done with it reads all of it first, and gives an ordinary tensor. The items read last are held.
    """

    _read: Read
    _held: tuple[tuple[int, int], Tensor] | None
    _largest: float | None

    @staticmethod
    def of(read: Read, shape: Sequence[int], dtype: torch.dtype) -> OnDisk:
        """Make one that `read` serves.

        Args:
            read: what it gives has the shape (stop - start, *shape[1:]) and this dtype.
        """
        made: OnDisk = torch.Tensor._make_wrapper_subclass(OnDisk, tuple(shape), dtype=dtype)
        made._read, made._held, made._largest = read, None, None
        return made

    def items(self, start: int, stop: int) -> Tensor:
        """Read items start..stop-1."""
        if self._held is None or self._held[0] != (start, stop):
            self._held = None  # before more is read
            self._held = (start, stop), self._read(start, stop)
        return self._held[1]

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.items(start, max(start, stop))
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"item {index} of {len(self)}")
            return self.items(index % len(self), index % len(self) + 1)[0]
        return self.items(0, len(self))[index]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[z] for z in range(len(self)))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDisk({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        read = lambda x: x.items(0, len(x)) if isinstance(x, OnDisk) else x  # noqa: E731
        return func(*tree_map(read, args), **tree_map(read, kwargs or {}))


def each(data: Tensor) -> Iterator[Tensor]:
    """Yield the items of a tensor (Z, ...) one by one, (1, ...): no more of one on disk is held."""
    return (data[z : z + 1] for z in range(len(data)))


def largest(data: Tensor) -> float:
    """Return the largest magnitude, 0 of nothing, NaN where there is one; of a tensor on disk it is found once."""
    found = data._largest if isinstance(data, OnDisk) else None
    if found is None:
        sizes = [float(item.abs().max()) for item in each(data) if item.numel()]
        found = math.nan if any(map(math.isnan, sizes)) else max(sizes, default=0.0)
    if isinstance(data, OnDisk):
        data._largest = found
    return found


def mapped(data: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `change` makes of items (B, ...), item by item; of one on disk when they are read."""
    if not isinstance(data, OnDisk):
        return change(data)
    like = change(torch.empty(0, *data.shape[1:], dtype=data.dtype))
    return OnDisk.of(lambda a, b: change(data[a:b]), (len(data), *like.shape[1:]), like.dtype)
