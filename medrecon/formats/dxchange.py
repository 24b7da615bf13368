"""Data Exchange (DXchange) HDF5 of synchrotron and micro-CT beamlines: parallel beam, with flat and dark fields.

Format: De Carlo et al., J. Synchrotron Rad. 21:1224 (2014); github.com/data-exchange/dxfile, doc/source/xraytomo.rst:
`exchange/data` counts (theta, y, x) unless its attribute `axes` says otherwise, `data_white`, `data_dark`, `theta`
(absent: evenly from 0 to 180 degrees), `measurement/instrument/detector/actual_pixel_size_x` (SI unless `units`).
The format does not say from which side the rotation is seen: the image may be the mirror image of the object.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon.acquisition.flat_field import flat_field, photons
from medrecon.acquisition.options import RawOptions
from medrecon.acquisition.rotation_centre import in_turn, mirror_centre, parallel_centre
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.common import checks, hdf5
from medrecon.formats.contents import of_raw
from medrecon.geometry import ParallelGeometry
from medrecon.geometry.placement import rotation_axis_affine

log = logging.getLogger(__name__)

PITCH = "measurement/instrument/detector/actual_pixel_size_x"
ASSUMED = "not in the file: taken as 1 mm, so that 1/mm means per element"


class DXchange(RawReader):
    """HDF5 of beamlines."""

    name = "dxchange"
    summary = "DXchange HDF5 (exchange/data with flats and darks), parallel beam"
    uses = ("slices", "size", "pixel", "pixel_size", "centre")

    def recognises(self, path: Path) -> bool:
        """Look for a group `exchange`."""
        return hdf5.holds(path, lambda h5: "exchange" in h5)

    def info(self, path: Path) -> dict[str, Any]:
        """Return views, rows, elements, and what the file says of angles and pitch."""
        with hdf5.opened(path) as h5:
            data = hdf5.dataset(h5, "exchange/data", (3,))
            views, rows, elements = (data.shape[axis] for axis in _axes(data))
            angles, theta = _angles(h5, views)
            pitch, pitch_from = _pitch(h5, RawOptions())
        found = {"modality": "ct", "geometry": "parallel", "rows": rows, "views": views, "elements": elements}
        arc = {"arc_degrees": round(float(np.rad2deg(np.ptp(in_turn(angles)[1]))), 6), "theta": theta}
        return of_raw(path, self, {**found, **arc, "detector_pixel_mm": pitch, "detector_pixel_from": pitch_from})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read some rows; see `_scan`."""
        return _scan(path, options)


def _scan(path: Path, options: RawOptions) -> Scan:
    """Read detector rows as slices, in 1/mm; the image has the detector's pitch and width by default.

    Without a pixel size, in the file or the options, an element counts as 1 mm, and the values are per element. The
    noise is that of the flats where there are enough of them, see `photons`; otherwise it is left to be estimated.

    Raises:
        ValueError: names file and key: missing or wrong data, angles, lengths; no rotation centre to be found.
    """
    with hdf5.opened(path) as h5:
        data = hdf5.dataset(h5, "exchange/data", (3,))
        if moved := [key for key in ("data_shift_x", "data_shift_y") if f"exchange/{key}" in h5]:
            raise ValueError(f"exchange/{moved[0]}: views that were moved are not read; shift them back first")
        order = _axes(data)
        views, rows, elements = (data.shape[axis] for axis in order)
        start, stop = options.range(rows)
        counts = _rows(data, order, start, stop).transpose(1, 0, 2)
        flats, darks = (
            _field(h5, f"exchange/{name}", rows, elements, start, stop) for name in ("data_white", "data_dark")
        )
        angles, theta = _angles(h5, views)
        pitch, pitch_from = _pitch(h5, options)
        if pitch_from == ASSUMED:
            log.warning("%s: no pixel size in the file: an element counts as 1 mm; --pixel-size sets it", path)
        corrected = flat_field(counts, flats.mean(0), darks.mean(0))
        lines = torch.from_numpy(corrected.lines)
        if theta != "file":
            log.warning("%s: no exchange/theta: the views count as evenly from 0 to 180 degrees, both included", path)
            _check_half_turn(corrected.lines)
        centre, how = (options.centre, "given") if options.centre is not None else parallel_centre(lines, angles)
    if not 0 <= centre <= elements - 1:
        raise ValueError(f"{path}: rotation centre {centre:.1f} is not on the detector of {elements} elements")
    size, pixel = options.grid(elements, pitch)
    rays = ParallelGeometry(tuple(angles), elements, pitch, det_offset=((elements - 1) / 2 - centre) * pitch)
    provenance = {
        "source": path.name,
        "format": "dxchange",
        "rows": [start, stop],
        "views": views,
        "theta": theta,
        "detector_pixel_mm": pitch,
        "detector_pixel_from": pitch_from,
        "rotation_centre_elements": centre,
        "rotation_centre_from": how,
        **corrected.facts(),
        "handedness": "not in the file: may be mirrored",
    }
    affine = rotation_axis_affine((size, size), pixel, pitch)
    return Scan(
        "ct", lines, (size, size), affine, "1/mm", geometry=rays, noise=photons(flats, darks), provenance=provenance
    )


def _axes(data: Any) -> tuple[int, int, int]:
    """Find where theta, y and x are among the axes of exchange/data."""
    names = _text(data.attrs.get("axes", "theta:y:x")).split(":")
    if sorted(names) != ["theta", "x", "y"]:
        raise ValueError(f"exchange/data: its attribute axes is {':'.join(names)!r}; expected theta:y:x in some order")
    return names.index("theta"), names.index("y"), names.index("x")


def _rows(data: Any, order: tuple[int, int, int], start: int, stop: int) -> NDArray[Any]:
    """(V, stop - start, D) of a dataset with axes in some order, only those rows read."""
    picked = tuple(slice(start, stop) if axis == order[1] else slice(None) for axis in range(3))
    return np.asarray(data[picked]).transpose(order)


def _field(h5: Any, key: str, rows: int, elements: int, start: int, stop: int) -> checks.Array:
    """Flats or darks (N, stop - start, D)."""
    field = hdf5.dataset(h5, key, (2, 3))
    if field.shape[-2:] != (rows, elements):
        raise ValueError(
            f"{key}: expected images of {rows} rows and {elements} columns as in exchange/data, got shape {field.shape}"
        )
    images = np.asarray(field[..., start:stop, :], dtype=float).reshape(-1, stop - start, elements)
    if not len(images):
        raise ValueError(f"{key}: holds no image")
    return checks.finite(key, images)


def _angles(h5: Any, views: int) -> tuple[checks.Array, str]:
    """View angles [rad] and where they are from."""
    if "exchange/theta" not in h5:
        return np.linspace(0, np.pi, views), "not in the file: evenly from 0 to 180 degrees, both included"
    theta = hdf5.dataset(h5, "exchange/theta", (1, 2))
    return checks.radians("exchange/theta", theta[()], views, _text(theta.attrs.get("units", ""))), "file"


def _check_half_turn(lines: NDArray[np.float32]) -> None:
    """Check that (Z, V, D) does not go once around: the last view the first again, the middle one its mirror image.

    Raises:
        ValueError: it does.
    """
    if lines.shape[1] < 4:
        return
    first, second, middle, last = (lines[:, i].astype(float) for i in (0, 1, lines.shape[1] // 2, -1))
    elements = np.arange(lines.shape[2], dtype=float)
    mirrored = 2 * mirror_centre(first, middle) - elements
    seen = (mirrored >= 0) & (mirrored < lines.shape[2])
    turned = np.stack([np.interp(mirrored[seen], elements, row) for row in middle])
    again, step, across = (float(np.square(view - first).mean()) for view in (last, second, middle))
    if again <= 8 * step and 4 * max(again, float(np.square(turned - first[:, seen]).mean())) < across:
        raise ValueError(
            "exchange/theta: missing, and the last view is the first one again, and the middle one its mirror image: "
            "views over 360 degrees, not over 180; write their angles [degrees] into the file"
        )


def _pitch(h5: Any, options: RawOptions) -> tuple[float, str]:
    """Pitch of the detector elements in the object [mm] and where it is from."""
    if options.pixel_size is not None:
        return options.pixel_size, "given"
    if PITCH not in h5:
        return 1.0, ASSUMED
    pitch = h5[PITCH]
    units = _text(pitch.attrs.get("units", pitch.attrs.get("unit", "m")))
    return checks.millimetres(PITCH, float(np.ravel(pitch[()])[0]), units, checks.PITCHES), "file"


def _text(value: Any) -> str:
    value = np.ravel(value)[0] if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)
