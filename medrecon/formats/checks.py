"""What every raw format asks of a file: that it opens, that angles and lengths make sense. Errors name file and key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medrecon.acquisition.options import OptionError

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
PITCHES = (1e-5, 10.0)
"""Detector elements of real scanners [mm]: from 10 nm to 10 mm."""
SOURCES = (1.0, 3e3)
"""Distances between source and axis [mm]."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file; what goes wrong while it is read is told with its name.

    Raises:
        ValueError: not HDF5, truncated or damaged, or an error of the block, with the file's name in front.
    """
    import h5py

    try:
        with h5py.File(path, "r") as h5:
            yield h5
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not HDF5, truncated or damaged ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error.args[0] if error.args else error}") from error


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 by its signature; a truncated one is."""
    import h5py

    return path.is_file() and bool(h5py.is_hdf5(path))


def dataset(h5: Any, key: str, ranks: tuple[int, ...], kinds: str = "iuf") -> Any:
    """A dataset of real numbers of an HDF5 file, not read yet; `kinds`: "c" for complex ones, "b" for truth values.

    Raises:
        ValueError: missing, or of another kind or rank.
    """
    if key not in h5:
        raise ValueError(f"{key}: missing; the file has {', '.join(map(str, h5)) or 'nothing'}")
    found = h5[key]
    if not hasattr(found, "shape") or found.dtype.kind not in kinds:
        came = getattr(found, "dtype", "a group")
        raise ValueError(f"{key}: expected a dataset of {'complex ' * (kinds == 'c')}numbers, got {came}")
    if found.ndim not in ranks:
        raise ValueError(f"{key}: expected rank {' or '.join(map(str, ranks))}, got shape {found.shape}")
    return found


def finite(key: str, values: Array, hint: str = "") -> Array:
    """The same values.

    Raises:
        ValueError: NaN or infinite ones among them, and where the first is.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        first = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{key}: {int(bad.sum())} NaN or infinite values, the first at {first}{hint}")
    return values


def radians(key: str, values: ArrayLike, count: int, units: str) -> Array:
    """View angles (V,) in rad, from "degrees" or "radians" in some spelling, or "" when the file does not say.

    Raises:
        ValueError: not one per view, NaN, not monotone, or a span that speaks of other units.
    """
    angles = np.ravel(np.asarray(values, dtype=float))
    if len(angles) != count:
        raise ValueError(f"{key}: expected {count} angles, one per view, got {len(angles)}")
    finite(key, angles)
    steps = np.diff(angles)
    if not ((steps > 0).all() or (steps < 0).all()):
        turn = int(np.argmax(np.sign(steps) != np.sign(steps[0])))
        raise ValueError(
            f"{key}: the angles are not monotone: {angles[turn]:g} is followed by {angles[turn + 1]:g} "
            f"(view {turn + 1}); sort the views, or leave out repeated ones"
        )
    span = float(np.ptp(angles))
    if units.lower().startswith("rad"):
        if span > 8 * math.pi:
            raise ValueError(f"{key}: spans {span:g} rad, {span / 2 / math.pi:.0f} turns; check the units, degrees?")
        return angles
    if units and not units.lower().startswith("deg"):
        raise ValueError(f"{key}: unknown units {units!r}; degrees or radians")
    if count > 1 and span < 2.01 * math.pi and not units:
        raise ValueError(f"{key}: spans {span:g} and has no units; check them: radians? then say so in the file")
    return np.deg2rad(angles)


def millimetres(key: str, value: float, units: str, bounds: tuple[float, float]) -> float:
    """A length in mm.

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
    """Whether lengths of a fan-beam scan [mm] can belong to one scanner: its detector `width` and image `field`.

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


def centred_affine(shape: tuple[int, int], pixel: float, slice_pitch: float) -> Tensor:
    """(4, 4) affine of square pixels [mm], shown like an axial slice, with the axis of rotation at x = y = 0."""
    affine = torch.diag(torch.tensor([-pixel, -pixel, slice_pitch, 1.0], dtype=torch.float64))
    affine[0, 3], affine[1, 3] = pixel * (shape[1] - 1) / 2, pixel * (shape[0] - 1) / 2
    return affine
