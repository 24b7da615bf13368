"""What the header of a twix measurement says: protocol name, and how its readouts encode the image."""

from __future__ import annotations

import math
from typing import Any

from medrecon.acquisition.kspace.readouts import Encoding
from medrecon.corrections.ramp_sampling import Trapezoid

CARTESIAN = 1
THREE_D = 4
EMBEDDED = 2
"""ucRefScanMode of calibration lines within the measurement."""
NOISE_BANDWIDTH = 0.79
"""Of Siemens receivers, relative."""


def protocol(header: dict[str, Any]) -> str:
    """Return the name of the protocol, or nothing."""
    names = (header.get(part, {}).get("tProtocolName") for part in ("MeasYaps", "Meas"))
    return next((str(name).strip('"+ ') for name in names if name), "")


def encoding_of(header: dict[str, Any], blocks: list[Any]) -> Encoding:
    """Return what the header says, and the blocks where it does not.

    Raises:
        ValueError: not Cartesian, slices excited at once, no readouts of an image, counters that do not fit.
        KeyError, TypeError, IndexError: what the header lacks.
    """
    if missing := [name for name in ("Meas", "MeasYaps", "Dicom") if name not in header]:
        raise ValueError(f"truncated or damaged: its header lacks {', '.join(missing)}")
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
    lines = _room("Lin", int(kspace["lPhaseEncodingLines"]), over[0], centre[0], [b.mdh.Counter.Lin for b in image])
    partitions = (
        _room("Par", int(kspace["lPartitions"]), over[1], centre[1], [b.mdh.Counter.Par for b in image]) if three else 1
    )
    field = slab["dReadoutFOV"], slab["dPhaseFOV"], slab["dThickness"]
    matrix = round(int(kspace["lBaseResolution"]) * oversampling), lines, partitions
    pat = yaps.get("sPat", {})
    embedded = int(pat.get("ucRefScanMode", 0)) == EMBEDDED
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
        "protocol": protocol(header),
    }
    return Encoding(
        matrix,
        encoded,
        field,
        centre,
        "cartesian",
        "embedded" if embedded else "separate",
        True,
        NOISE_BANDWIDTH,
        _ramp(meas),
        {k: v for k, v in facts.items() if v},
    )


def _room(name: str, full: int, over: float, centre: int, steps: list[int]) -> int:
    """Size of k-space with its centre at n//2 that holds all steps; the header's where that will do."""
    before, after = centre - min(steps), max(steps) - centre
    room = max(full, 2 * before, 2 * after + 1)
    if full < 1 or room > 2 * math.ceil(full * over) + 1:
        raise ValueError(
            f"the counter {name} runs from {min(steps)} to {max(steps)} with its centre at {centre}, and the header "
            f"has {full}; a damaged counter or header"
        )
    return room


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
