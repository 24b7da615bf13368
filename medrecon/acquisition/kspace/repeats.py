"""What may be averaged: lines of one place in k-space that the counter of averages alone tells apart."""

from __future__ import annotations

import numpy as np

from medrecon.acquisition.kspace.readouts import Flags, Index, Readouts

PLACE = ("slice", "step1", "step2")


def check_repeats(lines: Readouts, image: Index, along: Index | None = None) -> None:
    """Check that lines of one place differ in their average alone.

    Args:
        along: (n,) of the lines `image`: a number for the trajectory of each, instead of encode step 1.

    Raises:
        ValueError: two lines of one place differ in a free counter, or in no counter at all; how to choose.
    """
    place = _places(lines, image, along)
    _, group, count = np.unique(place, axis=1, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    if count.max(initial=1) == 1:
        return
    order = np.argsort(group, kind="stable")
    again = np.flatnonzero(np.diff(group[order]) == 0)
    for name, values in lines.free.items():
        found = values[image][order]
        if (differ := found[again] != found[again + 1]).any():
            a, b = (image[order[again[int(np.argmax(differ))] + i]] for i in (0, 1))
            known = ", ".join(map(str, np.unique(values[image])[:20].tolist()))
            raise ValueError(
                f"readouts {a} and {b} are of one place in k-space and differ in the counter {name} ({values[a]} and "
                f"{values[b]}), which need not count averages; choose one of {known} with --where.{name} N"
            )
    counted = np.vstack([place, lines.counters["average"][image]])
    _, first, number = np.unique(counted, axis=1, return_index=True, return_counts=True)
    if number.max() > 1:
        one = first[int(np.argmax(number > 1))]
        a, b = image[np.flatnonzero((counted == counted[:, one : one + 1]).all(0))[:2]]
        where = ", ".join(f"{name} {lines.counters[name][a]}" for name in (*PLACE, "average"))
        raise ValueError(
            f"readouts {a} and {b} have the same counters ({where}): nothing says that they are averages; leave one "
            "out, or count them as averages"
        )


def doubled(lines: Readouts, image: Index, extra: Flags) -> Flags:
    """Tell which of the lines `image` are `extra` (N,) and of a place where another line is that is not: (n,)."""
    place, own = _places(lines, image), extra[image]
    _, group = np.unique(place, axis=1, return_inverse=True)
    group = group.reshape(-1)
    return np.asarray(own & np.isin(group, group[~own]))


def _places(lines: Readouts, image: Index, along: Index | None = None) -> Index:
    place = np.stack([lines.counters[name][image] for name in PLACE])
    if along is not None:
        place[1] = along
    return place
