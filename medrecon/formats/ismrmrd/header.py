"""The XML header of an ISMRMRD group: matrix, fields of view, limits, and how its readouts encode the image."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from medrecon.acquisition.kspace.readouts import Encoding
from medrecon.corrections.ramp_sampling import Trapezoid
from medrecon.formats.common import hdf5, storage

T = TypeVar("T", int, float)
LONGEST = 2**24
"""Bytes of a header; real ones have some thousand."""


def header_of(dataset: Any, key: str) -> Any:
    """Read the XML header as the library's dataclasses; elements of later versions of the format are passed over.

    Raises:
        ValueError: not a header, far too long, with a document type (which could blow up), or without an encoding.
        ImportError: `ismrmrd` is not installed.
    """
    try:
        from ismrmrd.xsd import ismrmrdHeader
        from xsdata.formats.dataclass.parsers import XmlParser
        from xsdata.formats.dataclass.parsers.config import ParserConfig
    except ImportError as error:
        raise ImportError("reading ISMRMRD needs the package ismrmrd: pip install 'medrecon[mri]'") from error
    if not hdf5.is_dataset(dataset) or dataset.dtype.kind not in "OS" or dataset.size != 1:
        raise ValueError(f"{key}: not an ISMRMRD header: expected one text")
    storage.check_text(dataset, key)
    text = np.ravel(dataset[()])[0]
    raw = text if isinstance(text, bytes) else str(text).encode()
    if len(raw) > LONGEST or b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError(f"{key}: not an ISMRMRD header: it has a document type or is too long")
    try:
        parser = XmlParser(config=ParserConfig(fail_on_unknown_properties=False))
        header = parser.from_bytes(raw, ismrmrdHeader)
    except Exception as error:  # whatever the parser's library raises
        raise ValueError(f"{key}: not an ISMRMRD header ({error})") from error
    if not header.encoding:
        raise ValueError(f"{key}: the header has no encoding: matrix and field of view are not known")
    return header


def encoding_of(header: Any, space: int, key: str) -> Encoding:
    """Return what the header says of one of its encodings.

    Raises:
        ValueError: names the key: no such encoding, what is missing or impossible, slices excited at once.
    """
    if space >= len(header.encoding):
        raise ValueError(f"{key}: readouts refer to encoding {space}, the header has {len(header.encoding)}")
    encoding, system = header.encoding[space], header.acquisitionSystemInformation
    try:
        matrix = _xyz(encoding.encodedSpace.matrixSize, int)
        field, image = (_xyz(space.fieldOfView_mm, float) for space in (encoding.encodedSpace, encoding.reconSpace))
        limits = encoding.encodingLimits
        centre = tuple(
            int(limit.center) if limit is not None else matrix[axis] // 2
            for axis, limit in ((1, limits.kspace_encoding_step_1), (2, limits.kspace_encoding_step_2))
        )
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{key}: encoding {space} lacks matrix, field of view or limits ({error})") from error
    kind = str(encoding.trajectory.value) if encoding.trajectory is not None else "cartesian"
    parallel = encoding.parallelImaging
    if parallel and parallel.multiband is not None and int(parallel.multiband.multiband_factor) > 1:
        raise ValueError(
            f"{key}: {parallel.multiband.multiband_factor} slices were excited at once; this reader does "
            "not take them apart (operators.simultaneous does, in Python)"
        )
    # Without a word of the header calibration lines are of a scan of their own, as far as anybody knows.
    calibration = parallel.calibrationMode.value if parallel and parallel.calibrationMode else "separate"
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


def _xyz(size: Any, number: type[T]) -> tuple[T, T, T]:
    return number(size.x), number(size.y), number(size.z)


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
