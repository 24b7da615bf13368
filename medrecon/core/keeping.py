"""Keeping what took long: how a computation says what it can go on from, without knowing where that is kept."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Tensors = dict[str, Tensor]
Keep = Callable[[str, Callable[[], Tensors]], Tensors]
"""Called with a name and what makes tensors; gives them back, made now or kept from an earlier time."""


def made_now(name: str, make: Callable[[], Tensors]) -> Tensors:
    """Keep nothing."""
    return make()
