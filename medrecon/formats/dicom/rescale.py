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
HOW = "add RescaleSlope and RescaleIntercept (1 and 0 where the pixels are HU already), or leave the file out"


def of(frames: Sequence[Frame], kind: Modality) -> list[Scale]:
    """Return what makes values of stored ones, frame by frame.

    CT needs slope and intercept. MR does without where all of a stack do, or where the others change nothing.

    Raises:
        ValueError: missing, empty or unusable, or not HU; names the file.
    """
    pairs = [_pair(frame) for frame in frames]
    tables = [p is None and bool(f.get("ModalityLUTSequence")) for p, f in zip(pairs, frames, strict=True)]
    for frame, pair, table in zip(frames, pairs, tables, strict=True):
        if kind == "CT":
            _check_hu(frame, pair is None and not table)
        elif pair is None and not table and any(p not in (None, (1.0, 0.0)) for p in pairs):
            raise ValueError(f"{frame}: no RescaleSlope and RescaleIntercept, and other slices have them; {HOW}")
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


def _line(slope: float, intercept: float) -> Scale:
    return lambda stored: stored.astype(np.float64) * slope + intercept


def _table(frame: Frame) -> Scale:
    from pydicom.pixels.processing import apply_modality_lut

    return lambda stored: np.asarray(apply_modality_lut(stored, frame.header), dtype=np.float64)
