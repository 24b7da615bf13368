"""Siemens twix (.dat): raw MRI as the scanner stores it, VB, VD and VE; Cartesian and EPI, 2D and 3D.

The format is not published; files are parsed by the library twixtools. Noise dwell times and bandwidth are those the
ISMRMRD converter for Siemens data uses (github.com/ismrmrd/siemens_to_ismrmrd).
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.acquisition.kspace_sorting import USES, scan_of
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.acquisition.readouts import Encoding, Index, Readouts
from medrecon.core.scan import Scan
from medrecon.corrections.ramp_sampling import Trapezoid
from medrecon.formats.base import RawReader
from medrecon.formats.contents import of_raw
from medrecon.formats.dicom.files import is_dicom

COUNTERS = {
    "step1": "Lin",
    "step2": "Par",
    "slice": "Sli",
    "average": "Ave",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
}
NOT_IMAGE = (
    "ACQEND",
    "SYNCDATA",
    "HPFEEDBACK",
    "REFPHASESTABSCAN",
    "PHASESTABSCAN",
    "MDH_VOP",
    "RETRO_DUMMYSCAN",
    "noname60",
)
CARTESIAN = 1
THREE_D = 4
EMBEDDED = 2
"""ucRefScanMode of calibration lines within the measurement."""
NOISE_BANDWIDTH = 0.79
"""Of Siemens receivers, relative."""


class Twix(RawReader):
    """Raw data of Siemens scanners."""

    name = "twix"
    summary = "Siemens twix .dat (VB, VD, VE), raw MRI: Cartesian and EPI"
    uses = USES

    def recognises(self, path: Path) -> bool:
        """Look for a multi-raid (VD, VE) or VB header; a .dat without one is no twix that is known, and told so."""
        if not path.is_file() or not path.stat().st_size:
            return False
        return _version(path) is not None or (path.suffix.lower() == ".dat" and not is_dicom(path))

    def info(self, path: Path) -> dict[str, Any]:
        """Return what the headers say of the last measurement, and how many readouts it has."""
        lines, encoding, measurements = _measurement(path)
        found = {"modality": "mri", "readouts": len(lines), "coils": int(lines.coils[-1])}
        return of_raw(path, self, {**found, "measurements": measurements, **encoding.facts})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read the last measurement, with the noise readouts of it or of an earlier one; lines as they were stored.

        Raises:
            ValueError: names the file: an unknown version, truncated, not Cartesian, or what is wrong with which
                readout.
            ImportError: `twixtools` is not installed.
        """
        lines, encoding, measurements = _measurement(path)
        facts = {"source": path.name, "format": "twix", "measurements": measurements, "readouts": len(lines)}
        with _named(path):
            return scan_of(lines, encoding, options, facts)


def _measurement(path: Path) -> tuple[Readouts, Encoding, int]:
    """Readouts and encoding of the last measurement of a file, and how many it has."""
    version = _version(path) if path.is_file() else None
    if version is None:
        begins = f"it begins with {_start(path, 8).hex(' ')}" if path.is_file() else "it is a folder"
        raise ValueError(
            f"{path}: not a twix file of a version that is known (VB, VD, VE): {begins}; convert it to ISMRMRD, "
            "or export it again"
        )
    measurements = _parsed(path)
    with _named(path):
        encoding = _encoding(measurements[-1]["hdr"], measurements[-1]["mdb"])
        return _readouts(measurements, version, path.stat().st_size), encoding, len(measurements)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the name of the file in front of what goes wrong."""
    try:
        yield
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        text = f"the header lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {text}") from error


def _start(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _version(path: Path) -> str | None:
    """Version VE (multi-raid: VD, VE, XA) or VB, by the lengths at the start of the file; None: neither."""
    size, start = path.stat().st_size, _start(path, 32)
    if len(start) < 32:
        return None
    first, second = struct.unpack("<II", start[:8])
    offset, _ = struct.unpack("<QQ", start[16:32])
    if first < 10000 and 1 <= second <= 64 and 10240 <= offset < size:
        return "VE"
    name = start[8:16].split(b"\0")[0]
    return "VB" if 10000 <= first < size and 1 <= second <= 64 and name.isalpha() else None


def _parsed(path: Path) -> list[dict[str, Any]]:
    """The measurements as twixtools has them, which reports trouble by printing only."""
    try:
        import twixtools
    except ImportError as error:
        raise ImportError("reading twix needs the package twixtools: pip install 'medrecon[mri]'") from error
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found: list[dict[str, Any]] = twixtools.read_twix(
                str(path), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False, keep_acqend=True
            )
    except Exception as error:  # whatever a damaged file makes it raise
        raise ValueError(f"{path}: truncated or damaged, its headers cannot be parsed ({error})") from error
    if not found or "error" in said.getvalue():
        raise ValueError(f"{path}: truncated or damaged: {said.getvalue().strip() or 'no measurement in it'}")
    if missing := [name for name in ("Meas", "MeasYaps", "Dicom") if name not in found[-1]["hdr"]]:
        raise ValueError(f"{path}: truncated or damaged: its header lacks {', '.join(missing)}")
    return found


def _readouts(measurements: list[dict[str, Any]], version: str, size: int) -> Readouts:
    """All readouts of the last measurement, and noise readouts of an earlier one where it has none."""
    last = measurements[-1]
    ended = any(b.is_flag_set("ACQEND") for b in last["mdb"])
    blocks = [b for b in last["mdb"] if not any(b.is_flag_set(f) for f in NOT_IMAGE)]
    blocks = [b for b in blocks if not b.is_flag_set("RTFEEDBACK") or b.is_flag_set("PHASCOR")]
    if not blocks:
        raise ValueError("truncated: the last measurement has no readouts")
    if (stop := max(int(b.mem_pos) + int(b.dma_len) for b in blocks)) > size:
        raise ValueError(f"truncated: its readouts go on to byte {stop}, the file has {size}; copy it again")
    if not ended and "LASTSCANINMEAS" not in blocks[-1].get_active_flags():
        raise ValueError(f"truncated: the measurement breaks off after {len(blocks)} readouts, without its end marker")
    dwell = np.full(len(blocks), last["hdr"]["MeasYaps"]["sRXSPEC"]["alDwellTime"][0] / 1e3)
    noise = np.array([b.is_flag_set("NOISEADJSCAN") for b in blocks])
    dwell[noise] = [_noise_dwell(b, version, last["hdr"]) for b in blocks if b.is_flag_set("NOISEADJSCAN")]
    for earlier in reversed(measurements[:-1]):
        own = [b for b in earlier["mdb"] if b.is_flag_set("NOISEADJSCAN")]
        if not noise.any() and own and own[0].mdh.UsedChannels == blocks[0].mdh.UsedChannels:
            blocks += own
            dwell = np.append(dwell, [_noise_dwell(b, version, earlier["hdr"]) for b in own])
            noise = np.append(noise, np.ones(len(own), dtype=bool))
    return _table(blocks, noise, dwell)


def _table(blocks: list[Any], noise: NDArray[np.bool_], dwell: NDArray[np.float64]) -> Readouts:
    heads = [b.mdh for b in blocks]
    places = [h.SliceData for h in heads]

    def flag(name: str) -> NDArray[np.bool_]:
        return np.array([b.is_flag_set(name) for b in blocks])

    def load(index: Index) -> NDArray[np.complex64]:
        return np.stack([blocks[i].data for i in index])

    return Readouts(
        counters={
            ours: np.array([getattr(h.Counter, theirs) for h in heads], dtype=np.int64)
            for ours, theirs in COUNTERS.items()
        },
        noise=noise,
        navigator=flag("PHASCOR"),
        calibration=flag("PATREFSCAN") & ~flag("PATREFANDIMASCAN"),
        reverse=flag("REFLECT"),
        coils=np.array([h.UsedChannels for h in heads], dtype=np.int64),
        samples=np.array([h.SamplesInScan for h in heads], dtype=np.int64),
        centre=np.array([h.CenterCol for h in heads], dtype=np.int64),
        discard=np.array([[h.CutOff.Pre, h.CutOff.Post] for h in heads], dtype=np.int64),
        dwell=dwell,
        position=np.array([[p.SlicePos.Sag, p.SlicePos.Cor, p.SlicePos.Tra] for p in places], dtype=np.float64),
        directions=np.stack([_directions(np.asarray(p.Quaternion, dtype=np.float64)) for p in places]),
        load=load,
        offcentre=np.array([h.ReadOutOffcentre for h in heads], dtype=np.float64),
    )


def _directions(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Readout, phase, slice [LPS] in rows, of a unit quaternion (scalar first) that turns (phase, readout, slice)."""
    w, x, y, z = quaternion
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return turn.T[[1, 0, 2]]


def _noise_dwell(block: Any, version: str, header: dict[str, Any]) -> float:
    """Dwell time of a noise readout [us]: the header has that of the image only."""
    protocol = str(header["MeasYaps"].get("tProtocolName", header["Meas"].get("tProtocolName", "")))
    samples = int(block.mdh.SamplesInScan)
    if "AdjQuietCoilSens" in protocol:
        return 4.0
    if "AdjCoilSens" in protocol:
        return 5.0
    return 1e6 / samples / 130 if version == "VB" else int(76800 / samples) / 10


def _encoding(header: dict[str, Any], blocks: list[Any]) -> Encoding:
    yaps, meas = header["MeasYaps"], header["Meas"]
    kspace, slab = yaps["sKSpace"], yaps["sSliceArray"]["asSlice"][0]
    if kspace.get("ucTrajectory", CARTESIAN) != CARTESIAN:
        raise ValueError(
            f"a trajectory that is not Cartesian (ucTrajectory {kspace['ucTrajectory']}), which the file "
            "does not hold; convert it to ISMRMRD with its trajectory"
        )
    if (bands := int(yaps.get("sSliceAcceleration", {}).get("lMultiBandFactor", 1))) > 1:
        raise ValueError(
            f"{bands} slices were excited at once; this reader does not take them apart "
            "(operators.simultaneous does, in Python)"
        )
    image = [b for b in blocks if b.is_image_scan()]
    if not image:
        raise ValueError("no readouts of an image")
    oversampling = float(header["Dicom"].get("flReadoutOSFactor") or meas.get("flReadoutOSFactor") or 2)
    three = kspace.get("ucDimension") == THREE_D
    over = [1 + float(kspace.get(f"d{axis}OversamplingForDialog", 0) or 0) for axis in ("Phase", "Slice")]
    centre = int(image[0].mdh.CenterLin), int(image[0].mdh.CenterPar) if three else 0
    lines = _room(int(kspace["lPhaseEncodingLines"]), centre[0], [b.mdh.Counter.Lin for b in image])
    partitions = _room(int(kspace["lPartitions"]), centre[1], [b.mdh.Counter.Par for b in image]) if three else 1
    field = slab["dReadoutFOV"], slab["dPhaseFOV"], slab["dThickness"]
    matrix = round(int(kspace["lBaseResolution"]) * oversampling), lines, partitions
    pat = yaps.get("sPat", {})
    separate = (
        int(pat.get("lAccelFactPE", 1)) * int(pat.get("lAccelFact3D", 1)) > 1
        and int(pat.get("ucRefScanMode", EMBEDDED)) != EMBEDDED
    )
    encoded = field[0] * oversampling, field[1] * over[0], field[2] * (over[1] if three else 1)
    dicom = header["Dicom"]
    facts = {
        "encoded_matrix": list(matrix),
        "encoded_mm": list(encoded),
        "image_mm": list(field),
        "vendor": "Siemens",
        "model": dicom.get("ManufacturersModelName"),
        "software": dicom.get("SoftwareVersions"),
        "tesla": dicom.get("flMagneticFieldStrength"),
        "protocol": meas.get("tProtocolName"),
    }
    return Encoding(
        matrix,
        encoded,
        field,
        centre,
        "cartesian",
        "separate" if separate else "embedded",
        True,
        NOISE_BANDWIDTH,
        _ramp(meas),
        {k: v for k, v in facts.items() if v},
    )


def _room(full: int, centre: int, steps: list[int]) -> int:
    """Size of k-space with its centre at n//2 that holds all steps; the header's where that will do."""
    before, after = centre - min(steps), max(steps) - centre
    return max(full, 2 * before, 2 * after + 1)


def _ramp(meas: dict[str, Any]) -> Trapezoid | None:
    """The readout gradient, where it is sampled on ramps that are linear."""
    mode = int((meas.get("alRegridMode") or [1])[0])
    if mode < 2:
        return None
    if mode != 2:
        raise ValueError(f"alRegridMode {mode}: readout gradients that are not trapezoids are not read")
    keys = (
        "alRegridRampupTime",
        "alRegridFlattopTime",
        "alRegridRampdownTime",
        "alRegridDelaySamplesTime",
        "aflRegridADCDuration",
    )
    up, flat, down, delay, duration = (float(meas[key][0]) for key in keys)
    return Trapezoid(up, flat, down, delay, duration)
