"""What every raw format asks of numbers: that they are finite, that angles and lengths make sense."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NO_COUNTS = "; zero counts before the logarithm?"
IN_MM = {
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    "cm": 10.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "micron": 1e-3,
    "micrometer": 1e-3,
    "nm": 1e-6,
    "nanometer": 1e-6,
}
TURNS = 4
"""As many a scan makes at most: angles of more are not in rad, and those of a whole number up to it may be."""
PITCHES = (1e-5, 10.0)
"""Detector elements of real scanners [mm]: from 10 nm to 10 mm."""
SOURCES = (1.0, 3e3)
"""Distances between source and axis [mm]."""


def finite(key: str, values: Array, hint: str = "") -> Array:
    """Return the same values.

    Raises:
        ValueError: NaN or infinite ones among them, in the single precision we compute in, and where the first is.
    """
    bad = ~(np.abs(values) <= np.finfo(np.float32).max)
    if bad.any():
        first = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{key}: {int(bad.sum())} NaN or infinite values, the first at {first}{hint}")
    return values


def radians(key: str, values: ArrayLike, count: int, units: str) -> Array:
    """Return view angles (V,) in rad, from "degrees" or "radians" in some spelling, or "" when the file does not say.

    In any order: golden angles, interlaced turns, repeated views, an encoder that jitters or starts again at 0.

    Raises:
        ValueError: not one per view, NaN, one angle for nearly all, or a span that speaks of other units.
    """
    angles = np.ravel(np.asarray(values, dtype=float))
    if len(angles) != count:
        raise ValueError(f"{key}: expected {count} angles, one per view, got {len(angles)}")
    finite(key, angles)
    different, times = np.unique(angles, return_counts=True)
    often, usual = int(times.max(initial=1)), float(np.median(times)) if count else 1.0
    if often > 2 * usual + 1 or (count > 1 and len(different) == 1):
        raise ValueError(
            f"{key}: {often} of the {count} views are at {different[np.argmax(times)]:g}; were their angles never "
            f"written? leave these views out"
        )
    span = float(np.ptp(angles))
    if units.lower().startswith("rad"):
        if span > TURNS * 2 * math.pi:
            raise ValueError(f"{key}: spans {span:g} rad, {span / 2 / math.pi:.0f} turns; check the units, degrees?")
        return angles
    if units and not units.lower().startswith("deg"):
        raise ValueError(f"{key}: unknown units {units!r}; degrees or radians")
    turns = span * count / max(1, count - 1) / (2 * math.pi)
    whole = turns < TURNS + 0.5 and abs(turns - round(turns)) < 1e-3
    if count > 1 and not units and (span < 2.01 * math.pi or whole):
        raise ValueError(f"{key}: spans {span:g} and has no units; check them: radians? then say so in the file")
    return np.deg2rad(angles)


def millimetres(key: str, value: float, units: str, bounds: tuple[float, float]) -> float:
    """Return a length in mm.

    Raises:
        ValueError: unknown units, or a length that no scanner has.
    """
    factor = IN_MM.get(units.lower().rstrip("s") if len(units) > 2 else units.lower())
    if factor is None:
        raise ValueError(f"{key}: unknown units of length {units!r}; known: {', '.join(IN_MM)}")
    length = float(value) * factor
    if not bounds[0] <= length <= bounds[1]:
        raise ValueError(
            f"{key}: {value:g} {units} is {length:g} mm, outside {bounds[0]:g} .. {bounds[1]:g} mm; check the units"
        )
    return length


def fan_fits(source_origin: float, source_detector: float, width: float, field: float) -> None:
    """Check that lengths of a fan-beam scan [mm] can belong to one scanner: its detector `width` and image `field`.

    Raises:
        ValueError: what does not fit; nearly always a length in other units than the rest.
    """
    hint = "; check the units (cm for mm?)"
    if not 0 < source_origin < source_detector:
        raise ValueError(
            f"source to axis {source_origin:g} mm, source to detector {source_detector:g} mm: the axis is "
            f"not between them{hint}"
        )
    if source_origin <= field / math.sqrt(2):
        raise ValueError(
            f"the image reaches {field / math.sqrt(2):.4g} mm from the axis, beyond the source at "
            f"{source_origin:g} mm{hint}"
        )
    seen = width * source_origin / source_detector
    if not 0.3 * field < seen < 10 * field:
        raise ValueError(f"the detector sees {seen:.4g} mm at the axis, the image is {field:.4g} mm wide{hint}")
