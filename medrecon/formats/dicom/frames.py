"""The frames of DICOM files: each image with its place and its attributes, from a single-frame or an enhanced file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.formats.dicom.files import is_multiframe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# Functional groups of enhanced files; the later ones win.
GROUPS = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "MultienergyCTCharacteristicsSequence",
    "CTXRayDetailsSequence",
    "CTReconstructionSequence",
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRModifierSequence",
    "MRVelocityEncodingSequence",
    "MRArterialSpinLabelingSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "CardiacSynchronizationSequence",
    "TemporalPositionSequence",
    "ContrastBolusUsageSequence",
    "FrameContentSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PixelValueTransformationSequence",
)
PLACES = ("StackID", "InStackPositionNumber", "ImagePositionPatient", "FrameAcquisitionNumber")
"""Dimensions in which the frames of one volume differ."""
MAPPING = "RealWorldValueMappingSequence"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image.

    Attributes:
        header: the dataset of its file without pixels, with `filename`.
        index: which frame of its file.
        own: attributes by keyword that hold for this frame of an enhanced file.
        position: the centre of the first pixel, LPS mm, (3,).
        steps: to the next column and to the next row, LPS mm, (2, 3).
        normal: the unit vector along columns x rows, LPS, (3,).

    Raises:
        ValueError: no usable geometry; names the file.
    """

    header: Dataset
    index: int = 0
    own: dict[str, Any] = field(default_factory=dict)
    position: NDArray[np.float64] = field(init=False)
    steps: NDArray[np.float64] = field(init=False)
    normal: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        try:
            spacing, axes, place = (
                np.array(self.get(name), dtype=np.float64)
                for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
            )
            sizes = (int(self.header.Rows), int(self.header.Columns))
        except Exception as error:
            raise ValueError(f"{self}: no usable geometry ({error})") from error
        finite = all(np.isfinite(v).all() for v in (spacing, axes, place))
        if (spacing.shape, axes.shape, place.shape) != ((2,), (6,), (3,)) or not finite or min(*spacing, *sizes) <= 0:
            raise ValueError(f"{self}: no usable geometry (PixelSpacing, orientation, position or size)")
        axes = axes.reshape(2, 3)
        lengths = np.linalg.norm(axes, axis=1, keepdims=True)  # headers round the cosines
        if abs(axes[0] @ axes[1]) > 0.01 or (abs(lengths - 1) > 0.01).any():
            text = tuple(axes.flatten().tolist())
            raise ValueError(f"{self}: ImageOrientationPatient {text} is not a pair of orthogonal unit vectors")
        axes /= lengths
        normal = np.cross(axes[0], axes[1])
        for name, value in (
            ("position", place),
            ("steps", axes * spacing[::-1, None]),
            ("normal", normal / np.linalg.norm(normal)),
        ):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        name = str(self.header.filename)
        return f"{name}, frame {self.index + 1}" if self.is_multiframe else name

    @property
    def is_multiframe(self) -> bool:
        """Whether the frame is one of an enhanced file."""
        return is_multiframe(self.header)

    def get(self, name: str) -> Any:
        """Return an attribute of the frame, or of its file; None where it has none or an empty one.

        Raises:
            ValueError: damaged; names the file.
        """
        value = self.own.get(name)
        if value is None:
            try:
                value = self.header.get(name)
            except Exception as error:
                raise ValueError(f"{self}: {name} is damaged ({error})") from error
        return None if value is None or value == "" else value


def of(header: Dataset) -> tuple[list[Frame], str]:
    """Return the frames of a file, and why an enhanced one lacks some: the first without usable geometry.

    Raises:
        ValueError: no usable geometry at all, or not as many functional groups as frames; names the file.
    """
    if not is_multiframe(header):
        return [Frame(header)], ""
    try:
        per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or [])
        shared = _attributes(next(iter(header.get("SharedFunctionalGroupsSequence") or []), None))
        dimensions = [str(item.DimensionIndexPointer) for item in header.get("DimensionIndexSequence") or []]
        count = int(header.get("NumberOfFrames") or 1)
        own = [{**shared, **_attributes(item)} for item in per_frame]
        places = _tags(PLACES)
        for values in own:
            index = values.get("DimensionIndexValues") or []
            index = index if isinstance(index, list) or hasattr(index, "__iter__") else [index]
            told = [str(i) for i, name in zip(index, dimensions, strict=False) if name not in places]
            values["DimensionIndexValues"] = "/".join(told)
    except Exception as error:
        raise ValueError(f"{header.filename}: damaged functional groups ({error})") from error
    if not own or len(own) != count:
        raise ValueError(f"{header.filename}: {count} frames, but functional groups for {len(own)}")
    frames, lost = [], ""
    for index, values in enumerate(own):
        try:
            frames.append(Frame(header, index, values))
        except ValueError as error:
            lost = lost or str(error)
    if not frames:
        raise ValueError(lost)
    return frames, lost


def _tags(names: tuple[str, ...]) -> set[str]:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    return {str(Tag(tag)) for name in names if (tag := tag_for_keyword(name)) is not None}


def _attributes(groups: Dataset | None) -> dict[str, Any]:
    """The attributes of the functional groups of one frame, by keyword."""
    found: dict[str, Any] = {}
    for name in GROUPS if groups is not None else ():
        for item in groups.get(name) or []:  # type: ignore[union-attr]
            inner = item.get("DiffusionGradientDirectionSequence") or []
            for element in (e for part in (item, *inner) for e in part):
                if element.VR != "SQ" and element.keyword and not element.is_empty:
                    found[element.keyword] = element.value
    if groups is not None and groups.get(MAPPING):
        found[MAPPING] = groups[MAPPING].value
    return found
