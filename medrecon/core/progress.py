"""How far something is, told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[float, int], None]
"""Called with how many are done, which may be fractional (steps within a slice count), and how many there are."""


def silent(done: float, total: int) -> None:
    """Tell nobody."""
