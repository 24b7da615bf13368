"""Helsinki Tomography Challenge 2022 and other HelTomo .mat files: fan beam, log-transformed, geometry inside.

Zenodo 8041800 describes the data: flat-field and centre of rotation corrected, logarithm taken. The challenge's own
operator (HelTomo toolbox, create_ct_operator_2d_fan_astra.m) gives the angles, in degrees and as they are, to ASTRA's
`fanflat` with the detector centred. ASTRA's convention is ours, so images lie as the challenge's ground truth does.
The sense of rotation against the detector is in the data: the five files of disc tb, together 455 views, fit one disc
(chi^2/m 1.02), and do not with the angles negated (19.4). Both negated is the mirror image, which fits as well: whether
the disc is seen from above or from below is not said anywhere.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.common import checks, hdf5, storage
from medrecon.formats.contents import of_raw, of_scan
from medrecon.geometry import FanGeometry
from medrecon.geometry.placement import rotation_axis_affine

STRUCTS = ("CtDataLimited", "CtDataFull", "CtData")
NUMBERS = (
    "angles",
    "distanceSourceOrigin",
    "distanceSourceDetector",
    "pixelSizePost",
    "effectivePixelSizePost",
    "numDetectorsPost",
)
COMPRESSED = 15
"""Kind of a MATLAB 5 element."""
SIZE = 512
"""Rows of the challenge's images, with the effective pixel of the file."""


class HTC2022(RawReader):
    """A MATLAB file with one fan-beam sinogram."""

    name = "htc2022"
    summary = "Helsinki Tomography Challenge 2022, MATLAB 5 or 7.3 .mat with a struct CtDataLimited or CtDataFull"
    uses = ("size", "pixel")

    def recognises(self, path: Path) -> bool:
        """Look for a MATLAB file of either kind, by its first bytes."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(19) in (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")

    def info(self, path: Path) -> dict[str, Any]:
        """Return what reading gives."""
        return of_raw(path, self, {"modality": "ct", **of_scan(self.read_scan(path, RawOptions()))})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read one slice, 1/mm: at the tube's 45 kV HU mean little. Image: 512 rows of the effective pixel by default.

        Raises:
            ValueError: names file and key: not such a struct, missing or wrong values, mixed up units, truncated.
        """
        try:
            sinogram, values, units = _load(path)
        except (TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}: damaged: it has no such struct as it should ({error})") from error
        try:
            return _scan(path, sinogram, values, units, options)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}: {error}") from error


def _scan(path: Path, sinogram: checks.Array, values: dict[str, Any], units: str, options: RawOptions) -> Scan:
    if sinogram.ndim != 2:
        raise ValueError(f"sinogram: expected (views, detectors), got shape {sinogram.shape}")
    views, detectors = sinogram.shape
    if int(values["numDetectorsPost"][0]) != detectors:
        raise ValueError(f"numDetectorsPost: {int(values['numDetectorsPost'][0])}, but the sinogram has {detectors}")
    angles = checks.radians("angles", values["angles"], views, "")
    turns = np.sign(np.diff(angles))
    if (turns != turns[:1]).any():  # the challenge's scans turn one way
        view = int(np.argmax(turns != turns[0]))
        raise ValueError(
            f"angles: the angles are not monotone: {np.rad2deg(angles[view]):g} is followed by "
            f"{np.rad2deg(angles[view + 1]):g} (view {view + 1})"
        )
    source, distance = (
        checks.millimetres(key, values[key][0], units, checks.SOURCES)
        for key in ("distanceSourceOrigin", "distanceSourceDetector")
    )
    pitch, effective = (
        checks.millimetres(key, values[key][0], units, checks.PITCHES)
        for key in ("pixelSizePost", "effectivePixelSizePost")
    )
    checks.fan_fits(source, distance, detectors * pitch, SIZE * effective)
    if not 0.9 < pitch / effective * source / distance < 1.1:
        raise ValueError(
            f"pixelSizePost: {pitch:g} mm over effectivePixelSizePost {effective:g} mm is not the "
            f"magnification {distance / source:g}; check the units"
        )
    size, pixel = options.grid(SIZE, effective)
    rays = FanGeometry(tuple(angles), detectors, pitch, source_origin=source, origin_detector=distance - source)
    data = torch.from_numpy(checks.finite("sinogram", sinogram, checks.NO_COUNTS).astype(np.float32))[None]
    return Scan(
        "ct",
        data,
        (size, size),
        rotation_axis_affine((size, size), pixel, 1.0),
        "1/mm",
        geometry=rays,
        provenance={
            "source": path.name,
            "format": "htc2022",
            "views": views,
            "arc_degrees": round(float(np.rad2deg(np.ptp(angles))), 6),
        },
    )


def _load(path: Path) -> tuple[checks.Array, dict[str, Any], str]:
    """Sinogram (views, detectors), numbers, and the unit of lengths.

    Raises:
        ValueError: truncated, no such struct, or a key missing.
    """
    if hdf5.is_hdf5(path):
        with hdf5.opened(path) as h5:
            struct = _struct(h5)
            stored = hdf5.dataset(struct, "sinogram", (2,))
            storage.check_stored(stored, "sinogram")
            sinogram = np.asarray(stored, dtype=float).T  # MATLAB's column order
            parameters = _member(struct, "parameters")
            values = {key: _numbers(parameters, key) for key in NUMBERS}
            letters = np.ravel(parameters["distanceUnit"]).tolist() if "distanceUnit" in parameters else [109, 109]
            return sinogram, values, "".join(map(chr, letters))
    from scipy.io import loadmat

    if path.is_file():
        _check_inflated(path)
    try:
        content = loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises whatever the damage leads to
        raise ValueError(f"{path}: truncated or damaged MATLAB file ({error})") from error
    try:
        struct = _struct(content)
        parameters = _member(struct, "parameters")
        values = {key: _numbers(parameters, key) for key in NUMBERS}
        return np.asarray(_member(struct, "sinogram"), dtype=float), values, str(parameters.get("distanceUnit", "mm"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _struct(content: Any) -> Any:
    for name in STRUCTS:
        if name in content:
            return content[name]
    names = [str(name) for name in content if not str(name).startswith(("_", "#"))]
    raise ValueError(f"{STRUCTS[0]}: missing; the file has {', '.join(names) or 'nothing'}")


def _member(struct: Any, key: str) -> Any:
    if key not in struct:
        raise ValueError(f"{key}: missing")
    return struct[key]


def _numbers(struct: Any, key: str) -> checks.Array:
    """The numbers of a member, at least one."""
    found = _member(struct, key)
    if hdf5.is_dataset(found):
        storage.check_stored(found, key)
        found = found[()]
    try:
        values = np.ravel(np.asarray(found, dtype=float))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key}: expected numbers ({error})") from error
    if not values.size:
        raise ValueError(f"{key}: empty")
    return values


def _check_inflated(path: Path) -> None:
    """Check what the compressed elements of a MATLAB 5 file claim to be, before they are inflated.

    Raises:
        ValueError: more than the file justifies.
    """
    size, at, claimed = path.stat().st_size, 128, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            kind, length = struct.unpack("<II", file.read(8))
            if kind == COMPRESSED:
                try:
                    inner = zlib.decompressobj().decompress(file.read(min(length, 4096)), 8)
                except zlib.error:
                    return  # loadmat says it
                claimed += struct.unpack("<II", inner)[1] if len(inner) == 8 else 0
            at += 8 + length
    if claimed > storage.SMALL + storage.RATIO * size:
        raise ValueError(
            f"{path}: {size} bytes claim to be {claimed / 2**20:.0f} MiB; damaged, or made to fill the memory"
        )
