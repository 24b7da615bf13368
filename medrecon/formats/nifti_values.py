"""What the numbers of a NIfTI file are worth: images only, and only what single precision holds.

Standard: nifti.nimh.nih.gov, nifti1.h.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_IMAGE = {
    **dict.fromkeys(range(2, 25), "a statistic"),
    1002: "labels of regions",
    1003: "names of regions",
    1004: "matrices",
    1005: "matrices",
    1006: "a displacement field",
    1007: "vectors",
    1008: "points",
    1009: "triangles",
    1010: "quaternions",
    2002: "indices of nodes",
    2003: "RGB colours",
    2004: "RGBA colours",
    2005: "a shape",
    **dict.fromkeys(range(2006, 2020), "a displacement field, as of FSL"),
}
"""Intents of NIfTI, and of FSL, whose values are no grey values."""
COLOURS = {128: "RGB", 2304: "RGBA"}
"""Codes of datatypes."""
WHOLE = 2**53
"""Beyond it double precision does not hold every whole number."""
COARSE = 1e-3
"""Error of rounding to single precision, in parts of the range of the values, that is too much."""
SINGLE = np.finfo(np.float32)


def check_meaning(header: Any) -> None:
    """Raises ValueError where the header says that the values are no image: labels, vectors, colours, statistics."""
    if (kind := int(header["datatype"])) in COLOURS:
        raise ValueError(f"its voxels are {COLOURS[kind]} colours (datatype {kind}), not grey values")
    if (intent := int(header["intent_code"])) in NO_IMAGE:
        raise ValueError(
            f"intent_code is {intent}: {NO_IMAGE[intent]}, not an image; if it is one, set intent_code to 0"
        )


def scaled(stored: NDArray[Any], slope: float | None, inter: float | None) -> NDArray[Any]:
    """Return values (Z, Y, X) in single precision of stored ones (x, y, z): slope * stored + inter, slope None: stored.

    Raises:
        ValueError: values that single precision does not hold: too large, too small, or too much alike.
    """
    to = np.complex64 if stored.dtype.kind == "c" else np.float32
    turned = stored.transpose(2, 1, 0)
    out = np.empty(turned.shape, to)
    low, high, error = np.inf, -np.inf, 0.0
    for index, plane in enumerate(turned):  # slice by slice: double precision needs memory
        if plane.dtype.kind in "iu" and (int(plane.max()) > WHOLE or int(plane.min()) < -WHOLE):
            raise ValueError(
                f"slice {index}: whole numbers up to {max(int(plane.max()), -int(plane.min()))}, beyond the 2^53 that "
                "double precision holds; save them as smaller ones or as floating-point numbers"
            )
        exact = plane.astype(np.complex128 if to is np.complex64 else np.float64, order="C")
        if slope is not None and inter is not None:
            exact = slope * exact + inter
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            out[index] = exact
        parts = exact.view(np.float64)
        finite = np.isfinite(parts)
        if (np.abs(parts[finite]) > SINGLE.max).any():
            raise ValueError(
                f"slice {index}: values up to {np.abs(parts[finite]).max():.3g}, beyond the {SINGLE.max:.3g} of single "
                "precision; scale the image"
            )
        if finite.any():
            low, high = min(low, float(parts[finite].min())), max(high, float(parts[finite].max()))
            error = max(error, float(np.abs(parts[finite] - out[index].view(np.float32)[finite]).max()))
    if 0 < max(abs(low), abs(high)) < SINGLE.tiny:
        raise ValueError(f"values up to {max(high, -low):.3g}, below what single precision holds; scale the image")
    if high > low and error > COARSE * (high - low):
        raise ValueError(
            f"values {low:.10g} to {high:.10g} differ by less than single precision tells apart; subtract an offset"
        )
    return out
