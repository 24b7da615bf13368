"""What kind of image a frame is: its echo, component, contrast, energy. Two kinds are never slices of one volume.

What legitimately varies along a stack is not looked at: numbers, times, acquisitions (a sweep may be measured in two,
the odd slices after the even ones), tube current, places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medrecon.formats.dicom.frames import Frame
from medrecon.formats.dicom.rescale import HU

TEXTS = (
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "AcquisitionContrast",
    "RescaleType",
    "EchoNumbers",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "PulseSequenceName",
    "ASLContext",
    "ContrastBolusAgent",
    "ContrastBolusAgentAdministered",
    "ContrastBolusAgentPhase",
    "ConvolutionKernel",
    "ReconstructionAlgorithm",
    "SeriesDescription",
    "ProtocolName",
)
NUMBERS = {
    "EchoTime": 0.01,
    "EffectiveEchoTime": 0.01,
    "InversionTime": 0.1,
    "InversionTimes": 0.1,
    "RepetitionTime": 0.3,
    "FlipAngle": 0.05,
    "DiffusionBValue": 0.02,
    "DiffusionGradientOrientation": 0.02,
    "VelocityEncodingDirection": 0.02,
    "VelocityEncodingMaximumValue": 0.02,
    "KVP": 0.01,
    "MonoenergeticEnergyEquivalent": 0.005,
    "NominalPercentageOfCardiacPhase": 0.03,
    "SliceThickness": 0.25,
}
"""How much of its value two slices of one kind may differ by: scanners round, and repetitions follow the heart."""
POSITIONS = ("TemporalPositionIdentifier", "TemporalPositionIndex", "DimensionIndexValues")
"""Which of several volumes; a counter of slices where it is another for every slice."""
NESTED = {"MonoenergeticEnergyEquivalent": "MultienergyCTCharacteristicsSequence"}
"""Where single slices have them."""
NAMES = (*TEXTS, *NUMBERS, *POSITIONS)


def of(frames: Sequence[Frame]) -> list[tuple[int, ...]]:
    """Return what is the same for frames of one kind, and for no others, for each frame."""
    columns = []
    for name in NAMES:
        classes = _by(frames, name)
        if name not in POSITIONS or len(set(classes)) < len(frames):
            columns.append(classes)
    return list(zip(*columns, strict=True))


def differing(frames: Sequence[Frame]) -> list[str]:
    """Return the attributes in which frames are of several kinds: what is said of all of them together must not name
    one."""
    return [name for name in NAMES if len(set(_by(frames, name))) > 1]


def _by(frames: Sequence[Frame], name: str) -> list[int]:
    """The kind of each frame by one attribute."""
    found = [value(frame, name) for frame in frames]
    return _classes(found, NUMBERS[name]) if name in NUMBERS else _numbered([_text(name, v) for v in found])


def value(frame: Frame, name: str) -> Any:
    """Return an attribute of a frame, also where single slices have it in a sequence; a damaged one as its bytes."""
    try:
        return _value(frame, name)
    except ValueError:  # anonymised to a text, say: the same in all slices it tells none apart
        return repr(getattr(frame.header.get_item(name), "value", None))


def _value(frame: Frame, name: str) -> Any:
    if name in NESTED and not frame.is_multiframe and (items := frame.get(NESTED[name])):
        return items[0].get(name)
    return frame.get(name)


def _text(name: str, value: Any) -> str:
    text = written(value).upper()
    return "" if name == "RescaleType" and text in HU else text


def written(value: Any) -> str:
    """Return a value, or several, as DICOM writes them."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return "\\".join(str(v).strip() for v in value) if several else str("" if value is None else value).strip()


def _numbered(keys: Sequence[str]) -> list[int]:
    """Each key by the place of its first."""
    first: dict[str, int] = {}
    return [first.setdefault(key, len(first)) for key in keys]


def _classes(values: Sequence[Any], slack: float) -> list[int]:
    """Each value by the first one that it is near; what is no number, by its text."""
    known: list[Any] = []
    found: dict[str, int] = {}
    for value in values:
        if (text := written(value)) not in found:
            found[text] = next((i for i, other in enumerate(known) if _near(value, other, slack)), len(known))
            if found[text] == len(known):
                known.append(value)
    return [found[written(value)] for value in values]


def _near(value: Any, other: Any, slack: float) -> bool:
    if value is None or other is None:
        return False
    try:
        a, b = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (value, other))
    except (TypeError, ValueError):
        return False
    if a.shape != b.shape:
        return False
    return bool(np.linalg.norm(a - b) <= slack * max(np.linalg.norm(a), np.linalg.norm(b)))
