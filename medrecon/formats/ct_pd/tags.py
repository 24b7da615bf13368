"""The tags of DICOM-CT-PD, and how to read a value whose type the file may not tell.

Names, meaning and types: DICOM-CT-PD User Manual, version 3; Moen et al., Med. Phys. 48:902 (2021), table IV.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

BINARY = {"FL": "<f4", "US": "<u2"}
MODULES = {
    0x7029: "DetectorSystemArrangementModule",
    0x7031: "DetectorDynamicsModule",
    0x7033: "SourceDynamicsModule",
    0x7037: "ProjectionDataDefinitions",
    0x7039: "PreprocessingFlagsModule",
    0x7041: "WaterAttenuationModule",
}
"""Private creators of the groups; files in the wild may lack them."""


@dataclass(frozen=True)
class Tag:
    """A private element: number, name and value representation."""

    group: int
    element: int
    name: str
    vr: str

    def __str__(self) -> str:
        return f"({self.group:04x},{self.element:04x}) {self.name}"


ROWS = Tag(0x7029, 0x1010, "NumberofDetectorRows", "US")
COLUMNS = Tag(0x7029, 0x1011, "NumberofDetectorColumns", "US")
COLUMN_SPACING = Tag(0x7029, 0x1002, "DetectorElementTransverseSpacing", "FL")
ROW_SPACING = Tag(0x7029, 0x1006, "DetectorElementAxialSpacing", "FL")
SHAPE = Tag(0x7029, 0x100B, "DetectorShape", "CS")
ANGLE = Tag(0x7031, 0x1001, "DetectorFocalCenterAngularPosition", "FL")
HEIGHT = Tag(0x7031, 0x1002, "DetectorFocalCenterAxialPosition", "FL")
RADIUS = Tag(0x7031, 0x1003, "DetectorFocalCenterRadialDistance", "FL")
DISTANCE = Tag(0x7031, 0x1031, "ConstantRadialDistance", "FL")
CENTRE = Tag(0x7031, 0x1033, "DetectorCentralElement", "FL")
ANGLE_SHIFT = Tag(0x7033, 0x100B, "SourceAngularPositionShift", "FL")
HEIGHT_SHIFT = Tag(0x7033, 0x100C, "SourceAxialPositionShift", "FL")
RADIUS_SHIFT = Tag(0x7033, 0x100D, "SourceRadialDistanceShift", "FL")
FOCAL_MODE = Tag(0x7033, 0x100E, "FlyingFocalSpotMode", "CS")
STEPS = Tag(0x7033, 0x1013, "NumberofSourceAngularSteps", "US")
SPECTRUM = Tag(0x7033, 0x1063, "SpectrumIndex", "US")
PHOTONS = Tag(0x7033, 0x1065, "PhotonStatistics", "FL")
PROJECTION_TYPE = Tag(0x7037, 0x1009, "TypeofProjectionData", "CS")
PROJECTION_GEOMETRY = Tag(0x7037, 0x100A, "TypeofProjectionGeometry", "CS")
LOG = Tag(0x7039, 0x1009, "LogFlag", "CS")
WATER = Tag(0x7041, 0x1001, "WaterAttenuationCoefficient", "DS")


def numbers(dataset: Dataset, tag: Tag, path: Path, count: int | None = 1) -> NDArray[np.float64]:
    """The `count` finite numbers of an element, all of them for None.

    Raises:
        ValueError: the element is missing, of another length, no number, NaN or infinite.
    """
    value = _value(dataset, tag, path)
    try:
        if isinstance(value, bytes):
            # An element of unknown type keeps its bytes: little-endian, or text for a decimal string.
            read = np.frombuffer(value, BINARY[tag.vr]) if tag.vr in BINARY else value.decode("ascii").split("\\")
            array = np.array([float(str(x).strip("\0 ")) for x in read])
        else:
            array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {tag}: expected {tag.vr}, got {value!r:.60} ({error})") from error
    if count is not None and len(array) != count:
        raise ValueError(f"{path}: {tag}: expected {count} value{'s' * (count > 1)}, got {len(array)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {tag}: NaN or infinite; the file is damaged")
    return array


def number(dataset: Dataset, tag: Tag, path: Path) -> float:
    """The one number of an element."""
    return float(numbers(dataset, tag, path)[0])


def text(dataset: Dataset, tag: Tag, path: Path) -> str:
    """A code, in capitals."""
    value = _value(dataset, tag, path)
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ").upper()


def present(dataset: Dataset, tag: Tag) -> bool:
    return (tag.group, tag.element) in dataset and dataset[tag.group, tag.element].value is not None


def _value(dataset: Dataset, tag: Tag, path: Path) -> Any:
    if not present(dataset, tag):
        raise ValueError(f"{path}: {tag} is missing; not a DICOM-CT-PD projection, or stripped of its private elements")
    return dataset[tag.group, tag.element].value
