"""ISMRMRD HDF5 (MRD 1.x): raw MRI of any vendor after conversion; Cartesian, EPI, radial, spiral, 2D and 3D.

Format: Inati et al., Magn. Reson. Med. 77:411 (2017), ismrmrd.github.io: one group with `xml`, the header, and `data`,
the acquisitions: a header each, samples, and a trajectory where k-space is not Cartesian.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.acquisition.kspace_sorting import scan_of
from medrecon.acquisition.options import RawOptions
from medrecon.acquisition.readouts import Encoding, Index, Readouts
from medrecon.core.scan import Scan
from medrecon.corrections.ramp_sampling import Trapezoid
from medrecon.formats.common import hdf5

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


def read_acquisitions(path: Path, options: RawOptions) -> Scan:
    """Read one contrast, cardiac phase, repetition and set, in the file's own intensity units.

    Raises:
        ValueError: names the file, the key or the readout: a missing or wrong header, truncated or NaN samples,
            counters that do not fit the header, coils that differ.
        ImportError: `ismrmrd` is not installed.
    """
    with hdf5.opened(path) as h5:
        lines, encoding = measurement(h5)
        return scan_of(lines, encoding, options, {"source": path.name, "format": "ismrmrd", "readouts": len(lines)})


def measurement(h5: Any) -> tuple[Readouts, Encoding]:
    """Return the readouts of an open file, their samples not read yet, and how they encode the image.

    Raises:
        ValueError: names the key: no measurement, a missing or wrong header, no acquisitions.
        ImportError: `ismrmrd` is not installed.
    """
    names = groups(h5)
    if not names:
        raise ValueError(f"no group with xml and data; the file has {', '.join(map(str, h5)) or 'nothing'}")
    name = "dataset" if "dataset" in names else names[0]
    header = _header(h5[f"{name}/xml"], f"{name}/xml")
    table, heads = h5[f"{name}/data"], _heads(h5[f"{name}/data"], f"{name}/data")
    lines, space = _readouts(table, heads)
    encoding = _encoding(header, space, f"{name}/xml")
    if encoding.kind == "cartesian":
        _mend_centres(lines, encoding.matrix[0])
    return lines, encoding


def groups(h5: Any) -> list[str]:
    """List the groups of an open file that hold a measurement."""
    import h5py

    return [
        str(key) for key, group in h5.items() if isinstance(group, h5py.Group) and "xml" in group and "data" in group
    ]


def _header(dataset: Any, key: str) -> Any:
    """The XML header as the library's dataclasses; elements of later versions of the format are passed over."""
    try:
        from ismrmrd.xsd import ismrmrdHeader
        from xsdata.formats.dataclass.parsers import XmlParser
        from xsdata.formats.dataclass.parsers.config import ParserConfig
    except ImportError as error:
        raise ImportError("reading ISMRMRD needs the package ismrmrd: pip install 'medrecon[mri]'") from error
    text = np.ravel(dataset[()])[0]
    try:
        parser = XmlParser(config=ParserConfig(fail_on_unknown_properties=False))
        header = parser.from_bytes(text if isinstance(text, bytes) else str(text).encode(), ismrmrdHeader)
    except Exception as error:  # whatever the parser's library raises
        raise ValueError(f"{key}: not an ISMRMRD header ({error})") from error
    if not header.encoding:
        raise ValueError(f"{key}: the header has no encoding: matrix and field of view are not known")
    return header


def _heads(table: Any, key: str) -> Any:
    """The headers of all acquisitions, without their samples."""
    names = table.dtype.names or ()
    if "head" not in names or "data" not in names or table.ndim != 1:
        raise ValueError(f"{key}: expected a list of acquisitions, got shape {table.shape} of {table.dtype}")
    if not len(table):
        raise ValueError(f"{key}: holds no acquisitions")
    hdf5.require_written(table)
    return table["head"]


def _readouts(table: Any, heads: Any) -> tuple[Readouts, int]:
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
    space = int(heads["encoding_space_ref"][np.argmax(imaging)])
    used &= special | (heads["encoding_space_ref"] == space)
    numbers = np.flatnonzero(used)
    heads, flags = heads[numbers], flags[numbers]
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


def _encoding(header: Any, space: int, key: str) -> Encoding:
    if space >= len(header.encoding):
        raise ValueError(f"{key}: readouts refer to encoding {space}, the header has {len(header.encoding)}")
    encoding, system = header.encoding[space], header.acquisitionSystemInformation
    try:
        matrix, field, image = (
            _xyz(encoding.encodedSpace.matrixSize),
            _xyz(encoding.encodedSpace.fieldOfView_mm),
            _xyz(encoding.reconSpace.fieldOfView_mm),
        )
        limits = encoding.encodingLimits
        centre = tuple(
            int(limit.center) if limit is not None else matrix[axis] // 2
            for axis, limit in ((1, limits.kspace_encoding_step_1), (2, limits.kspace_encoding_step_2))
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{key}: encoding {space} lacks matrix, field of view or limits ({error})") from error
    kind = str(encoding.trajectory.value) if encoding.trajectory is not None else "cartesian"
    parallel = encoding.parallelImaging
    if parallel and parallel.multiband is not None and int(parallel.multiband.multiband_factor) > 1:
        raise ValueError(
            f"{key}: {parallel.multiband.multiband_factor} slices were excited at once; this reader does "
            "not take them apart (operators.simultaneous does, in Python)"
        )
    calibration = parallel.calibrationMode.value if parallel and parallel.calibrationMode else "embedded"
    facts = {"trajectory": kind, "encoded_matrix": list(matrix), "encoded_mm": list(field), "image_mm": list(image)}
    vendor = (system.systemVendor or "") if system else ""
    known = {"vendor": vendor, "model": system and system.systemModel, "tesla": system and system.systemFieldStrength_T}
    facts |= {name: value for name, value in known.items() if value}
    return Encoding(
        (matrix[0], matrix[1], matrix[2]),
        field,
        image,
        (centre[0], centre[1]),
        "cartesian" if kind == "epi" else kind,
        "embedded" if calibration == "interleaved" else calibration,
        vendor.lower().startswith("siemens"),
        system.relativeReceiverNoiseBandwidth if system else None,
        _ramp(encoding.trajectoryDescription),
        facts,
    )


def _xyz(size: Any) -> tuple[Any, Any, Any]:
    return size.x, size.y, size.z


def _ramp(description: Any) -> Trapezoid | None:
    """The readout gradient of an EPI, as the Siemens converter describes it ("ConventionalEPI"), in us."""
    if description is None or description.identifier != "ConventionalEPI":
        return None
    values = {p.name: float(p.value) for p in (*description.userParameterLong, *description.userParameterDouble)}
    try:
        up, down, flat, delay = (values[k] for k in ("rampUpTime", "rampDownTime", "flatTopTime", "acqDelayTime"))
        return Trapezoid(up, flat, down, delay, values["numSamples"] * values["dwellTime"])
    except KeyError as missing:
        raise ValueError(f"trajectoryDescription: {missing.args[0]} is missing of the EPI's readout gradient") from None


def _mend_centres(lines: Readouts, full: int) -> None:
    """Some converters leave the centre of complete lines at 0."""
    lines.centre[(lines.centre == 0) & (lines.samples - lines.discard.sum(1) == full) & (full > 1)] = full // 2


def _flagged(flags: NDArray[np.uint64], numbers: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where any of these flags is set; they count from 1."""
    return np.asarray((flags & np.uint64(sum(1 << (n - 1) for n in numbers))) != 0)
