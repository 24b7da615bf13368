"""Which axis of an array is what: told by the user in words, never by the shape."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

LEADING = ("slice", "coil")


def ordered(name: str, array: Tensor, axes: str | Sequence[str] | None, item: tuple[str, ...]) -> tuple[Tensor, str]:
    """Return an array as (slice, coil, *item), and its axes in words as they were; those it lacks are of length 1.

    Args:
        axes: words, such as "coil row column"; None: the array has those of `item` alone.
        item: the axes of one image of one coil, such as ("row", "column").

    Raises:
        ValueError: axes that are not told and have to be, or words that do not fit.
    """
    if axes is None:
        if array.ndim != len(item):
            raise ValueError(
                f"{name}: {array.ndim} axes, {tuple(array.shape)}: say which is what, {_choices(array, item)}"
            )
        words = item
    elif not isinstance(axes, str | Sequence):
        raise ValueError(f'axes: expected words such as "coil {" ".join(item)}", got {axes!r}')
    else:
        words = tuple(re.split(r"[\s,]+", axes.strip()) if isinstance(axes, str) else axes)
    known = (*LEADING, *item)
    if len(set(words)) != len(words) or not set(item) <= set(words) <= set(known):
        raise ValueError(
            f"axes: expected {' and '.join(item)}, and slice and coil where there are some, each once, got {axes!r}"
        )
    if len(words) != array.ndim:
        raise ValueError(f"axes: {' '.join(words)} are {len(words)}, and {name} has {array.ndim}, {tuple(array.shape)}")
    for word in LEADING:
        if word not in words:
            array, words = array[None], (word, *words)
    return array.permute([words.index(word) for word in known]), " ".join(words[len(words) - array.ndim :])


def _choices(array: Tensor, item: tuple[str, ...]) -> str:
    """What a user may have meant."""
    likely = {1: (("coil",), ("slice",)), 2: (("slice", "coil"),)}.get(array.ndim - len(item), ())
    texts = [f'axes="{" ".join((*lead, *item))}"' for lead in likely]
    return " or ".join(texts) or f"in axes; there are {', '.join((*LEADING, *item))}"
