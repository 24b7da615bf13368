"""A detector shifted to one side of the axis (half-fan), which widens the field of view of a full turn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import FanGeometry, ParallelGeometry

G = TypeVar("G", bound=ParallelGeometry | FanGeometry)
FEWEST = 6
"""Columns that must see both sides: with fewer the weights jump between them, and the middle comes out wrong."""


def offset_weights(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights (D,) of a full turn: a ray and its reverse add up to 2, a ray without reverse gets 2.

    They rise over the columns that see both sides (Wang, Med. Phys. 29:1634 (2002), eq. 10); where the sides differ
    little, only near the ends, since unlike weights raise the noise. All are 1 where no whole column lacks, such as
    with a quarter offset.
    """
    if missing_columns(positions) == 0:
        return np.ones_like(positions)
    left, right = -float(positions[0]), float(positions[-1])
    overlap, rise = min(left, right), 8 * abs(right - left)
    if overlap <= rise:
        step = np.sin(math.pi / 2 * np.clip(positions / overlap, -1, 1))
    else:
        ends = np.sin(math.pi / 2 * np.clip((abs(positions) - overlap) / rise + 1, 0, 1)) ** 2
        step = np.sign(positions) * ends
    return np.asarray(1 + math.copysign(1, right - left) * step)


def check_axis(positions: NDArray[np.float64]) -> None:
    """Raise ValueError where too few columns lie beyond the axis: lines through the middle are missing."""
    left, right = -float(positions[0]), float(positions[-1])
    if missing_columns(positions) == 0:
        return
    pitch = float(positions[1] - positions[0])
    if min(left, right) < min(FEWEST * pitch, max(left, right) / 4):
        raise ValueError(
            f"filtered backprojection: the detector's columns lie {-left:.4g} to {right:.4g} mm from the "
            f"axis, and {FEWEST} of them ({FEWEST * pitch:.4g} mm) must lie beyond it; check the detector's offset, or "
            "use an iterative solver"
        )


def missing_columns(positions: NDArray[np.float64]) -> int:
    """Return how many columns the short side of a detector lacks to be as long as the other."""
    if len(positions) < 2:
        return 0
    return math.floor(abs(positions[0] + positions[-1]) / (positions[1] - positions[0]) + 1e-6)


def widened(geometry: G) -> tuple[G, tuple[int, int]]:
    """Return the geometry with the columns that its short side lacks, and how many that are at the start and the end.

    Weighted rays are 0 there; filtered, they are not, and pixels read them.
    """
    count = missing_columns(geometry.positions())
    shift = math.copysign(count * geometry.det_spacing / 2, geometry.det_offset)
    wide = replace(geometry, det_count=geometry.det_count + count, det_offset=geometry.det_offset - shift)
    return wide, ((count, 0) if geometry.det_offset > 0 else (0, count))
