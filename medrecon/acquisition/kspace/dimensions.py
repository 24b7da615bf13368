"""Slices or a slab, whatever the header's matrix says; and room for k-space in proportion to what was measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medrecon.acquisition.kspace.readouts import Encoding, Index, Readouts
from medrecon.acquisition.kspace.slice_stack import Slice, unplaced

SMALL = 2**26
"""Bytes that are always allowed: 64 MiB."""
SPARSE = 100
"""Times as large as the samples of the file k-space may be: the most undersampled scans have one in 20 or 30."""


def dimensions(
    lines: Readouts, image: Index, encoding: Encoding, slices: list[Slice]
) -> tuple[Encoding, dict[str, Any]]:
    """Return the encoding with one partition where the lines have one, and what to say of it.

    A header whose matrix counts partitions that the lines do not is that of slices measured one by one.

    Raises:
        ValueError: lines of several partitions, and a header with one.
    """
    steps, partitions = np.unique(lines.counters["step2"][image]), encoding.matrix[2]
    if len(steps) > 1 and partitions == 1:
        raise ValueError(
            f"the readouts have {len(steps)} encode steps 2 ({steps[0]} to {steps[-1]}), and the header's encoded "
            f"matrix {encoding.matrix} one: partitions must not be averaged; correct the matrix in the header"
        )
    if len(steps) > 1 or partitions == 1:
        return encoding, {}
    text = f"slices: all readouts have encode step 2 = {steps[0]}, though the header's matrix has {partitions}"
    return encoding.flat(_thickness(encoding, slices)), {"dimensions": text}


def check_room(lines: Readouts, image: Index, encoding: Encoding, total: int) -> None:
    """Check that full k-space of `total` lines is in proportion to the samples of the lines `image`.

    Raises:
        ValueError: a matrix or counters that ask for far more than was measured.
    """
    coils = int(lines.coils[image[0]])
    needed = 8 * coils * encoding.matrix[0] * max(total, 256)
    measured = 8 * coils * int(lines.samples[image].sum())
    if needed > SMALL + SPARSE * measured:
        raise ValueError(
            f"the encoded matrix {encoding.matrix} asks for {needed / 2**20:.0f} MiB of k-space, "
            f"{needed / measured:.0f} times the {len(image)} readouts that there are; a wrong matrix in the header, or "
            "a wrong counter?"
        )


def check_image(lines: Readouts, image: Index, shape: tuple[int, int]) -> None:
    """Check that an image of `shape` is in proportion to the samples along a trajectory; errors as `check_room`."""
    needed, measured = 8 * math.prod(shape), 8 * int(lines.samples[image].sum())
    if needed > SMALL + SPARSE * measured:
        raise ValueError(
            f"the header asks for an image of {shape[0]} x {shape[1]} pixels, {needed / measured:.0f} times the "
            "samples that there are; a wrong matrix in the header?"
        )


def _thickness(encoding: Encoding, slices: list[Slice]) -> float:
    """Of a slice [mm], where the header's field of view may be that of all slices together."""
    field = encoding.image_mm[2]
    if len(slices) > 1 and not unplaced(slices):
        return float(np.linalg.norm(slices[1].centre - slices[0].centre)) or field
    return field / encoding.matrix[2] if len(slices) == encoding.matrix[2] else field
