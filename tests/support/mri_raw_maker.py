"""Raw MRI files of a phantom that is known in the scanner's room: Gaussian blobs, whose k-space is a closed form."""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SIGMA = 4.0
"""Width of a blob [mm]."""
COILS = np.array([1.0, 0.6 - 0.5j, -0.3 + 0.8j])
"""Coils of uniform sensitivity."""
READ, PHASE = np.array([0.36, 0.48, 0.8]), np.array([-0.8, 0.6, 0.0])
AXES = np.stack([READ, PHASE, np.cross(READ, PHASE)])
"""Readout, phase, slice [LPS] of an oblique scan."""
RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Plane:
    """A slice: centre [mm, LPS], axes in rows, and blobs (amplitude, mm along readout, mm along phase)."""

    centre: Array
    axes: Array = field(default_factory=lambda: AXES)
    blobs: tuple[tuple[float, float, float], ...] = ((1.0, 31.0, -17.0), (0.7, -12.0, 24.0), (0.5, -25.0, -30.0))

    def signal(self, k_read: Array, k_phase: Array | float, sign: float = -1) -> Array:
        """Fourier transform at frequencies in 1/mm; scanners of sign +1 turn the other way."""
        k_read, k_phase = np.broadcast_arrays(k_read, k_phase)
        decay = 2 * math.pi * SIGMA**2 * np.exp(-2 * (math.pi * SIGMA) ** 2 * (k_read**2 + k_phase**2))
        return sum(a * decay * np.exp(sign * 2j * math.pi * (k_read * u + k_phase * v)) for a, u, v in self.blobs)

    def room(self, blob: int) -> Array:
        """Where a blob is [mm, RAS]."""
        _, u, v = self.blobs[blob]
        return RAS * (self.centre + u * self.axes[0] + v * self.axes[1])


@dataclass(frozen=True)
class Protocol:
    """A Cartesian scan: matrix (readout, phase, partitions) and field of view [mm], oversampling included."""

    matrix: tuple[int, int, int] = (96, 40, 1)
    field_mm: tuple[float, float, float] = (240.0, 120.0, 5.0)
    image: tuple[int, int, int] = (48, 40, 1)

    @property
    def image_mm(self) -> tuple[float, ...]:
        return tuple(f * i / m for f, i, m in zip(self.field_mm, self.image, self.matrix))

    def k(self, axis: int) -> Array:
        """Frequencies [1/mm] of centred k-space."""
        return (np.arange(self.matrix[axis]) - self.matrix[axis] // 2) / self.field_mm[axis]

    def grid(self, plane: Plane, sign: float = -1) -> Array:
        """(H, W) full k-space without readout oversampling, as a centred orthonormal transform of the image has it."""
        k = (np.arange(self.image[0]) - self.image[0] // 2) / self.image_mm[0]
        return plane.signal(k[:, None], self.k(1)[None], sign) * self.scale(self.image[0])

    def scale(self, rows: int) -> float:
        """Integral over mm^2 -> sum over pixels, orthonormal."""
        area = self.field_mm[0] / self.matrix[0] * self.field_mm[1] / self.matrix[1]
        return 1 / area / math.sqrt(rows * self.matrix[1])


def header(
    protocol: Protocol,
    *,
    centre: tuple[int, int] | None = None,
    trajectory: str = "cartesian",
    vendor: str = "none",
    bandwidth: float | None = None,
    calibration: str | None = None,
    ramp: dict[str, float] | None = None,
    bands: int = 1,
) -> bytes:
    from ismrmrd import xsd

    def space(matrix: Sequence[int], mm: Sequence[float]) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=matrix[0], y=matrix[1], z=matrix[2]),
            fieldOfView_mm=xsd.fieldOfViewMm(x=mm[0], y=mm[1], z=mm[2]),
        )

    def limit(axis: int, zero: int) -> Any:
        return xsd.limitType(minimum=0, maximum=protocol.matrix[axis] - 1, center=zero)

    first, second = centre or (protocol.matrix[1] // 2, protocol.matrix[2] // 2)
    encoding = xsd.encodingType(
        encodedSpace=space(protocol.matrix, protocol.field_mm),
        reconSpace=space(protocol.image, protocol.image_mm),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=limit(1, first), kspace_encoding_step_2=limit(2, second)
        ),
        trajectory=xsd.trajectoryType(trajectory),
    )
    if calibration:
        encoding.parallelImaging = xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1),
            calibrationMode=xsd.calibrationModeType(calibration),
        )
    if bands > 1:
        encoding.parallelImaging = xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=1, kspace_encoding_step_2=1),
            multiband=xsd.multibandType(
                spacing=[xsd.multibandSpacingType(dZ=[20.0])],
                deltaKz=1.0,
                multiband_factor=bands,
                calibration=xsd.multibandCalibrationType.OTHER,
                calibration_encoding=0,
            ),
        )
    if ramp:
        encoding.trajectoryDescription = xsd.trajectoryDescriptionType(
            identifier="ConventionalEPI",
            userParameterLong=[
                xsd.userParameterLongType(name=k, value=int(v)) for k, v in ramp.items() if k != "dwellTime"
            ],
            userParameterDouble=[xsd.userParameterDoubleType(name="dwellTime", value=ramp["dwellTime"])],
        )
    system = xsd.acquisitionSystemInformationType(systemVendor=vendor, relativeReceiverNoiseBandwidth=bandwidth)
    whole = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=1),
        encoding=[encoding],
        acquisitionSystemInformation=system,
    )
    text: str = xsd.ToXML(whole)
    return text.encode()


def line(
    samples: Array,
    plane: Plane | None = None,
    *,
    centre: int | None = None,
    flags: Iterable[int] = (),
    dwell: float = 5.0,
    trajectory: Array | None = None,
    **counters: int,
) -> Any:
    """One acquisition of the library, of samples (C, S)."""
    import ismrmrd

    made = ismrmrd.Acquisition.from_array(samples.astype(np.complex64), trajectory)
    made.center_sample = samples.shape[1] // 2 if centre is None else centre
    made.sample_time_us = dwell
    for name, value in counters.items():
        setattr(made.idx, {"step1": "kspace_encode_step_1", "step2": "kspace_encode_step_2"}.get(name, name), value)
    for flag in flags:
        made.set_flag(flag)
    if plane is not None:
        made.position[:], made.read_dir[:] = plane.centre, plane.axes[0]
        made.phase_dir[:], made.slice_dir[:] = plane.axes[1], plane.axes[2]
    return made


def lines(protocol: Protocol, plane: Plane, *, sign: float = -1, **counters: int) -> Iterator[Any]:
    """All lines of a slice, oversampled."""
    for step, k in enumerate(protocol.k(1)):
        samples = plane.signal(protocol.k(0), k, sign) * protocol.scale(protocol.matrix[0])
        yield line(COILS[:, None] * samples, plane, step1=step, **counters)


def mrd(path: Path, xml: bytes, acquisitions: Iterable[Any]) -> Path:
    import ismrmrd

    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(xml)
        for acquisition in acquisitions:
            dataset.append_acquisition(acquisition)
    return path


def twix(path: Path, blocks: list[Any], yaps: str, meas: str = "", earlier: list[Any] | None = None) -> Path:
    """A VE file of one measurement, or two, with the least of headers; blocks of VB make a VB file."""
    import twixtools

    head = twix_header(yaps, meas)
    if not blocks[0].version_is_ve:
        ending = type(blocks[0])(version_is_ve=False)
        ending.add_flag("ACQEND")
        body = b"".join(bytes(b.mdh) + b.data[c].tobytes() for b in blocks for c in range(len(b.data)))
        path.write_bytes(head.tobytes() + body + bytes(ending.mdh) + bytes(384))
        return path
    scans = [{"mdb": found, "hdr_str": head, "hdr": {}} for found in ([earlier] if earlier else []) + [blocks]]
    twixtools.write_twix(scans, str(path))
    return path


def twix_header(yaps: str, meas: str) -> Array:
    """Length, number of buffers, and the buffers that matter, as single bytes."""

    def buffer(name: str, text: str) -> bytes:
        return name.encode() + b"\0" + struct.pack("<I", len(text)) + text.encode()

    body = buffer(
        "Dicom",
        '<ParamString."SoftwareVersions"> { "syngo MR E11" } <ParamDouble."flReadoutOSFactor"> { <Precision> 6 2.0 } ',
    )
    body += buffer("Meas", meas) + buffer("MeasYaps", f"### ASCCONV BEGIN ###\n{yaps}\n### ASCCONV END ###\n")
    length = -(-(8 + len(body)) // 32) * 32
    length = max(length, 10240)  # real ones are far longer, by which VB is told
    return np.frombuffer((struct.pack("<II", length, 3) + body).ljust(length, b"\0"), dtype="S1")


def block(
    samples: Array,
    step: int,
    *,
    centre: int,
    lines: int,
    place: Array,
    quaternion: Array,
    flags: Iterable[str] = (),
    ve: bool = True,
    **counters: int,
) -> Any:
    """One twix measurement block of samples (C, S)."""
    from twixtools.mdb import Mdb_local

    made = Mdb_local(samples.astype(np.complex64), version_is_ve=ve)
    head = made.mdh
    head.Counter.Lin, head.CenterCol, head.CenterLin = step, centre, lines // 2
    head.SliceData.SlicePos.Sag, head.SliceData.SlicePos.Cor, head.SliceData.SlicePos.Tra = place
    for i, value in enumerate(quaternion):
        head.SliceData.Quaternion[i] = value
    for name, value in counters.items():
        setattr(head.Counter, name, value)
    for flag in flags:
        made.add_flag(flag)
    return made
