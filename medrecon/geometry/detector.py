"""What all detectors share: the places of their elements, and the checks of what a scan says of them and of its views.

Errors name the entry as the measurement file does: geometry/det_spacing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Size = Literal["det_count", "det_shape"]
"""What tells the number of elements: D of a row, or (R, D) rows and columns."""


def positions(count: int, spacing: float, offset: float) -> NDArray[np.float64]:
    """Return the places (count,) of detector elements along their axis [mm]."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * spacing + offset)


def check_elements(key: Size, size: Any, spacing: Any, offset: Any) -> None:
    """Check how many elements a detector has, how far apart and where: numbers, or pairs (row, column).

    Raises:
        ValueError: names the entry, what was expected and what came.
    """
    shape, numbers = ((), "one number") if key == "det_count" else ((2,), "two numbers, row and column")
    for name, value in ((key, size), ("det_spacing", spacing), ("det_offset", offset)):
        try:
            found = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            found = np.array(math.nan)
        if found.shape != shape or not np.isfinite(found).all():
            raise ValueError(f"geometry/{name}: expected {numbers}, got {value}")
        if name == key and (np.asarray(value).dtype.kind not in "iu" or (found < 1).any()):
            raise ValueError(f"geometry/{name}: expected whole numbers of elements, at least 1, got {value}")
        if name == "det_spacing" and (found <= 0).any():
            raise ValueError(f"geometry/{name}: expected mm > 0, got {value}")


def view_angles(values: Any) -> tuple[float, ...]:
    """Return the angles of the views [rad] as floats.

    Raises:
        ValueError: none, or not finite.
    """
    if not len(values):
        raise ValueError("geometry/angles: expected at least one view")
    return by_view("angles", values, len(values), 1)


def by_view(key: str, values: Any, views: int, numbers: int) -> tuple[Any, ...]:
    """Return what changes from view to view as a tuple: a float of each view, or a tuple of `numbers` > 1 floats.

    Raises:
        ValueError: another number of views, or of numbers a view; values that are not finite.
    """
    found = np.asarray(values, dtype=float)
    if found.size == 0:
        return ()
    if found.shape != ((views,) if numbers == 1 else (views, numbers)):
        each = "" if numbers == 1 else f" of {numbers} numbers"
        came = " of ".join(map(str, found.shape)) or "a number"
        raise ValueError(f"geometry/{key}: expected {views}{each}, one per view, got {came}")
    if not np.isfinite(found).all():
        raise ValueError(f"geometry/{key}: NaN or infinite {key}")
    return tuple(found.tolist() if numbers == 1 else map(tuple, found.tolist()))


def check_distances(source_origin: float, origin_detector: float, detector: str) -> None:
    """Raises ValueError where source or detector is at an impossible distance, or the detector of an unknown form."""
    if not 0 < source_origin < math.inf:
        raise ValueError(f"geometry/source_origin: expected mm > 0, got {source_origin}")
    if not 0 <= origin_detector < math.inf:
        raise ValueError(f"geometry/origin_detector: expected mm >= 0, got {origin_detector}")
    if detector not in ("flat", "arc"):
        raise ValueError(f"geometry/detector: expected 'flat' or 'arc', got {detector!r}")


def check_line_integrals(shape: tuple[int, ...], angles: Sequence[float], key: Size, size: Any) -> None:
    """Check that line integrals of shape (V, D) or (V, R, D) are of these views and these elements.

    Raises:
        ValueError: names the entry, what was expected and what came.
    """
    views, *elements = shape
    if len(angles) != views:
        raise ValueError(f"geometry/angles: expected {views}, one per view, got {len(angles)}")
    found = list(size) if key == "det_shape" else [size]
    if found != elements:
        expected, came = (elements, found) if key == "det_shape" else (elements[0], size)
        raise ValueError(f"geometry/{key}: expected {expected} as in data, got {came}")
