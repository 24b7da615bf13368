"""From stored values to HU or a.u.: the rescale of every frame, or why there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.core.volume import Modality
from medrecon.formats.dicom.frames import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Scale = Callable[["NDArray[Any]"], "NDArray[np.float64]"]
NAMES = ("RescaleSlope", "RescaleIntercept")
HU = ("", "HU", "US")
"""Rescale types taken as HU: none told, HU, and unspecified, which is warned of."""
HU_UNITS = ("[hnsf'U]", "HU", "HOUNSFIELD UNIT")
HOW = "add RescaleSlope and RescaleIntercept (1 and 0 where the pixels are HU already), or leave the file out"


def of(frames: Sequence[Frame], kind: Modality) -> list[Scale]:
    """Return what makes values of stored ones, frame by frame.

    CT needs slope and intercept. MR does without where all of a stack do, or where the others change nothing.

    Raises:
        ValueError: missing, empty or unusable, or not HU; names the file.
    """
    pairs = [_pair(frame) for frame in frames]
    tables = [bool(frame.get("ModalityLUTSequence")) for frame in frames]
    for frame, pair, table in zip(frames, pairs, tables, strict=True):
        if table and pair is not None:
            raise ValueError(
                f"{frame}: has a Modality LUT Sequence, and RescaleSlope and RescaleIntercept too; DICOM allows one of "
                "them, and each gives other values. Remove the one that is wrong, or leave the file out"
            )
        if kind == "CT":
            _check_hu(frame, pair is None and not table)
        elif pair is None and not table and (any(tables) or any(p not in (None, (1.0, 0.0)) for p in pairs)):
            raise ValueError(f"{frame}: no RescaleSlope and RescaleIntercept, and other slices have them; {HOW}")
    _check_mappings(frames, pairs, kind)
    return [
        _table(frame) if table else _line(*(pair or (1.0, 0.0)))
        for frame, pair, table in zip(frames, pairs, tables, strict=True)
    ]


def _pair(frame: Frame) -> tuple[float, float] | None:
    """Slope and intercept, None where both are missing."""
    told = [frame.get(name) for name in NAMES]
    if told == [None, None]:
        return None
    for name, value in zip(NAMES, told, strict=True):
        if value is None:
            raise ValueError(f"{frame}: {name} is missing or empty; {HOW}")
    try:
        slope, intercept = (float(value) for value in told)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{frame}: RescaleSlope or RescaleIntercept is no number ({error})") from error
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"{frame}: RescaleSlope is {slope:g} and RescaleIntercept {intercept:g}, which make no image")
    return slope, intercept


def _check_hu(frame: Frame, missing: bool) -> None:
    if missing:
        raise ValueError(f"{frame}: CT without RescaleSlope and RescaleIntercept is not in HU; {HOW}")
    told = frame.get("RescaleType")
    tables = frame.get("ModalityLUTSequence")
    if told is None and tables:
        told = tables[0].get("ModalityLUTType")
    kind = str(told or "").strip().upper()
    if kind not in HU:
        raise ValueError(f"{frame}: the values are {told} (RescaleType), not HU")
    if kind == "US":
        log.warning("%s: RescaleType says that its values have no unit; they are taken as HU", frame)


def _check_mappings(frames: Sequence[Frame], pairs: Sequence[tuple[float, float] | None], kind: Modality) -> None:
    """Real world values are not applied: slope and intercept are. Say so, where these are all that tells the values.

    Raises:
        ValueError: slices of MR whose only scale they are, another in each; CT where HU are another by both.
    """
    mappings = [_mapping(frame) for frame in frames]
    for frame, pair, (unit, line) in zip(frames, pairs, mappings, strict=True):
        if kind == "CT" and unit in HU_UNITS and line and pair and not np.allclose(line, pair, rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"{frame}: slope and intercept of HU are {line} by RealWorldValueMappingSequence, {pair} by "
                "RescaleSlope and RescaleIntercept; remove the one that is wrong, or leave the file out"
            )
    if kind == "CT" or any(pairs) or not any(unit or line for unit, line in mappings):
        return
    if other := next((i for i, told in enumerate(mappings) if told != mappings[0]), None):
        raise ValueError(
            f"{frames[other]}: no RescaleSlope and RescaleIntercept, and another RealWorldValueMappingSequence than "
            f"{frames[0]}: their stored values do not compare; {HOW}"
        )
    log.warning(
        "%s: RealWorldValueMappingSequence tells values in %s; it is not applied, the values are as stored (a.u.)",
        frames[0],
        mappings[0][0] or "a unit it does not name",
    )


def _mapping(frame: Frame) -> tuple[str, tuple[float, float] | None]:
    """Unit, and slope and intercept, of the real world values of a frame; "" and None where there are none."""
    try:
        items = frame.get("RealWorldValueMappingSequence") or []
        for item in items:
            units = item.get("MeasurementUnitsCodeSequence") or []
            unit = str(units[0].get("CodeValue") or "") if units else ""
            slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
            return unit, None if slope is None or intercept is None else (float(slope), float(intercept))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{frame}: RealWorldValueMappingSequence is damaged ({error})") from error
    return "", None


def _line(slope: float, intercept: float) -> Scale:
    return lambda stored: stored.astype(np.float64) * slope + intercept


def _table(frame: Frame) -> Scale:
    """The values of the frame's lookup table: below its first stored value the first one, above its last the last."""
    from pydicom.pixels.processing import apply_modality_lut

    try:
        told = int(frame.header.ModalityLUTSequence[0].LUTDescriptor[1])
        signed = int(frame.header.PixelRepresentation) == 1
    except Exception as error:
        raise ValueError(f"{frame}: ModalityLUTSequence is damaged ({error})") from error
    first = (told + 0x8000) % 0x10000 - 0x8000 if signed else told % 0x10000  # headers write -1024 as 64512 too

    def values(stored: NDArray[Any]) -> NDArray[np.float64]:
        try:
            return np.asarray(apply_modality_lut(stored.astype(np.int64) + told - first, frame.header), np.float64)
        except Exception as error:
            raise ValueError(f"{frame}: ModalityLUTSequence cannot be applied ({error})") from error

    return values
