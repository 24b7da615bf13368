"""ISMRMRD HDF5 (MRD 1.x): raw MRI of any vendor after conversion; Cartesian, EPI, radial, spiral, 2D and 3D.

Format: Inati et al., Magn. Reson. Med. 77:411 (2017), ismrmrd.github.io: one group with `xml`, the header, and `data`,
the acquisitions: a header each, samples, and a trajectory where k-space is not Cartesian. A file may have several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.acquisition.kspace.readouts import Encoding, Index, Readouts
from medrecon.acquisition.options import OptionError
from medrecon.formats.common import storage
from medrecon.formats.ismrmrd.header import encoding_of, header_of

NOISE, CALIBRATION, REVERSE, NAVIGATOR = 19, 20, 22, 24
NOT_IMAGE = (23, 26, 27, 28, 29, 30, 31)
"""Navigation, feedback, dummies, surface coil correction, phase stabilisation: left out."""
COMPRESSED = (53, 54, 55, 56)
COUNTERS = {
    "step1": "kspace_encode_step_1",
    "step2": "kspace_encode_step_2",
    "slice": "slice",
    "average": "average",
    "contrast": "contrast",
    "phase": "phase",
    "repetition": "repetition",
    "set": "set",
}
FIELDS = (
    "flags",
    "idx",
    "encoding_space_ref",
    "active_channels",
    "number_of_samples",
    "center_sample",
    "discard_pre",
    "discard_post",
    "sample_time_us",
    "position",
    "read_dir",
    "phase_dir",
    "slice_dir",
    "trajectory_dimensions",
)


def measurement(h5: Any, name: str, space: int | None = None) -> tuple[Readouts, Encoding]:
    """Return the readouts of a group, their samples not read yet, and how they encode the image.

    Args:
        space: which of the header's encodings; the one that readouts of an image refer to by default.

    Raises:
        ValueError: names the key: a missing or wrong header, no acquisitions, several encodings and no choice.
        ImportError: `ismrmrd` is not installed.
    """
    header = header_of(h5[f"{name}/xml"], f"{name}/xml")
    table, heads = h5[f"{name}/data"], _heads(h5[f"{name}/data"], f"{name}/data")
    lines, own = _readouts(table, heads, space)
    encoding = encoding_of(header, own, f"{name}/xml")
    if encoding.kind == "cartesian":
        _mend_centres(lines, encoding.matrix[0])
    return lines, encoding


def _heads(table: Any, key: str) -> Any:
    """The headers of all acquisitions, without their samples."""
    names = table.dtype.names or ()
    if "head" not in names or "data" not in names or table.ndim != 1:
        raise ValueError(f"{key}: expected a list of acquisitions, got shape {table.shape} of {table.dtype}")
    if not len(table):
        raise ValueError(f"{key}: holds no acquisitions")
    storage.check_stored(table, key)
    storage.check_sequences(table, ("data", "traj"), key)
    heads = table["head"]
    if missing := [name for name in FIELDS if name not in (heads.dtype.names or ())]:
        raise ValueError(f"{key}: the headers of the acquisitions lack {', '.join(missing)}")
    return heads


def _readouts(table: Any, heads: Any, wanted: int | None) -> tuple[Readouts, int]:
    """The readouts that matter, and which of the header's encodings those of the image refer to."""
    flags = heads["flags"].astype(np.uint64)
    if _flagged(flags, COMPRESSED).any():
        raise ValueError(
            f"readout {int(np.argmax(_flagged(flags, COMPRESSED)))}: its samples are compressed; convert "
            "the file without compression"
        )
    used = ~_flagged(flags, NOT_IMAGE)
    special = _flagged(flags, (NOISE, NAVIGATOR))
    imaging = used & ~special & ~_flagged(flags, (CALIBRATION,))
    imaging = imaging if imaging.any() else used & ~special
    spaces = np.unique(heads["encoding_space_ref"][imaging]).tolist() or [0]
    if wanted is None and len(spaces) > 1:
        raise ValueError(
            f"readouts of an image in encodings {', '.join(map(str, spaces))} of the header; choose one with "
            "--where.encoding N"
        )
    if wanted is not None and wanted not in spaces:
        raise OptionError(f"where.encoding {wanted}: the file has {', '.join(map(str, spaces))}")
    space = spaces[0] if wanted is None else wanted
    used &= special | (heads["encoding_space_ref"] == space)
    numbers = np.flatnonzero(used)
    heads, flags = heads[numbers], flags[numbers]
    free = {"segment": heads["idx"]["segment"], "encoding": heads["encoding_space_ref"]}
    user = heads["idx"]["user"]
    free |= {f"user{i}": user[:, i] for i in range(user.shape[1])}
    dims = int(heads["trajectory_dimensions"].max(initial=0))
    return Readouts(
        counters={ours: heads["idx"][theirs].astype(np.int64) for ours, theirs in COUNTERS.items()},
        noise=_flagged(flags, (NOISE,)),
        navigator=_flagged(flags, (NAVIGATOR,)),
        calibration=_flagged(flags, (CALIBRATION,)),
        reverse=_flagged(flags, (REVERSE,)),
        coils=heads["active_channels"].astype(np.int64),
        samples=heads["number_of_samples"].astype(np.int64),
        centre=heads["center_sample"].astype(np.int64),
        discard=np.stack([heads["discard_pre"], heads["discard_post"]], axis=1).astype(np.int64),
        dwell=heads["sample_time_us"].astype(np.float64),
        position=heads["position"].astype(np.float64),
        directions=np.stack([heads[f"{d}_dir"] for d in ("read", "phase", "slice")], axis=1).astype(np.float64),
        load=lambda index: np.stack(list(_samples(table, heads, numbers, index))),
        trajectory=(lambda index: np.stack(list(_positions(table, heads, numbers, index)))) if dims else None,
        free={name: values.astype(np.int64) for name, values in free.items()},
    ), space


def _samples(table: Any, heads: Any, numbers: Index, index: Index) -> Iterator[NDArray[np.complex64]]:
    """(C, S) of each readout."""
    for i, values in zip(index, _column(table, "data", numbers[index])):
        coils, samples = int(heads["active_channels"][i]), int(heads["number_of_samples"][i])
        if len(values) != 2 * coils * samples:
            raise ValueError(
                f"acquisition {numbers[i]}: {len(values) // 2} samples, its header says {coils} coils of {samples}"
            )
        yield np.ascontiguousarray(values, dtype=np.float32).view(np.complex64).reshape(coils, samples)


def _positions(table: Any, heads: Any, numbers: Index, index: Index) -> Iterator[NDArray[np.float32]]:
    """(S, D) trajectory of each readout, without the samples to discard."""
    for i, values in zip(index, _column(table, "traj", numbers[index])):
        samples, dims = int(heads["number_of_samples"][i]), int(heads["trajectory_dimensions"][i])
        if not dims or len(values) != dims * samples:
            raise ValueError(
                f"acquisition {numbers[i]}: a trajectory of {len(values)} numbers for {samples} samples "
                f"in {dims} dimensions"
            )
        first, last = int(heads["discard_pre"][i]), int(heads["discard_post"][i])
        yield np.asarray(values, dtype=np.float32).reshape(samples, dims)[first : samples - last]


def _column(table: Any, name: str, numbers: Index) -> Iterator[NDArray[Any]]:
    """A field of some acquisitions; those beside each other are read at once."""
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        yield from table[name, int(run[0]) : int(run[-1]) + 1]


def _mend_centres(lines: Readouts, full: int) -> None:
    """Some converters leave the centre of complete lines at 0."""
    unset = (lines.centre == 0) & (lines.samples - lines.discard.sum(1) == full) & (full > 1)
    lines.centre[unset] = full // 2 + lines.discard[unset, 0]


def _flagged(flags: NDArray[np.uint64], numbers: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where any of these flags is set; they count from 1."""
    return np.asarray((flags & np.uint64(sum(1 << (n - 1) for n in numbers))) != 0)
