"""DICOM out: a derived single-frame CT or MR series that refers to its source. See docs/guide/dicom.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon import __version__
from medrecon.core import atomic, checksum, stage
from medrecon.core.stack import Stack
from medrecon.formats.dicom import files as dicom_files
from medrecon.formats.dicom import header as dicom_header
from medrecon.formats.dicom import kinds
from medrecon.formats.dicom.geometry import LPS_TO_RAS
from medrecon.formats.dicom.origin import find_sources, frames_of
from medrecon.formats.dicom.stored import Values

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

log = logging.getLogger(__name__)

PATTERN = "medrecon_*.dcm"


def write_series(
    stack: Stack,
    path: Path,
    *,
    overwrite: bool = False,
    template: Path | None = None,
    description: str = "",
    beside: Mapping[Path, str] | None = None,
) -> Path:
    """Write one file per slice, medrecon_0001.dcm and so on, in slice order.

    The grid may differ from the source's: size, spacing and place come from the affine, the patient, study and
    frame of reference from the nearest source slice. UIDs come from a hash of the content: the same image gets
    the same UIDs, another image others. CT is stored as whole HU from -1024 on (values clipped are counted in
    a warning), MR with a rescale slope that uses 16 bits.

    Args:
        beside: texts of files that appear with the folder.

    Raises:
        FileExistsError: the folder holds something.
        FileNotFoundError: a source image is gone.
        ValueError: columns and rows not orthogonal, units that do not fit, or a source that is elsewhere in space or
            not what it was when the volume was read.
    """
    shown = stage.final(path)
    if (stack.modality, stack.units) not in {("CT", "HU"), ("MR", "a.u.")}:
        raise ValueError(f"{shown}: DICOM takes CT in HU or MR in a.u., not {stack.modality} in {stack.units}")
    place = _placement(stack, shown)
    sources = find_sources(stack.source, template)
    if stack.source.get("dicom_sha256") and not sources:
        log.warning(
            "%s: patient and study stay empty; give the folder of the source images (--template FOLDER, template=)",
            shown,
        )
    _check_sources(stack, sources, place, shown)
    description = description.encode("ascii", "replace").decode()  # the source's character set may hold no more
    differing = _differing(sources, shown)
    key = _content_key(stack, sources, description)
    values = Values(stack)
    values.warn(shown)
    now = datetime.now()
    with atomic.folder(path, PATTERN, overwrite=overwrite, beside=beside) as folder:
        for index, pixels in enumerate(values.stored()):
            source = _nearest(sources, place, index)
            dataset = dicom_header.base(stack.modality, source, key, differing)
            dicom_header.identify(dataset, source, key, index, description, now)
            _locate(dataset, place, index)
            for name, value in values.attributes.items():
                setattr(dataset, name, value)
            dataset.Rows, dataset.Columns = pixels.shape
            dataset.add_new("PixelData", "OW", pixels.tobytes())
            save_dataset(dataset, folder / f"medrecon_{index + 1:04d}.dcm")
    return path


class _Placement:
    """Where the slices are, in DICOM's terms (LPS mm)."""

    def __init__(self, stack: Stack) -> None:
        affine = LPS_TO_RAS @ stack.affine.numpy()
        self.column_spacing, self.row_spacing, _ = np.linalg.norm(affine[:3, :3], axis=0)
        self.axes = affine[:3, :2] / np.array([self.column_spacing, self.row_spacing])
        self.normal = np.cross(self.axes[:, 0], self.axes[:, 1])
        self.positions = affine[:3, 3] + np.arange(len(stack))[:, None] * affine[:3, 2]
        _, height, width = stack.shape
        self.centres = self.positions + affine[:3, 0] * (width - 1) / 2 + affine[:3, 1] * (height - 1) / 2
        self.slice_spacing = abs(float(affine[:3, 2] @ self.normal))


def _placement(stack: Stack, path: Path) -> _Placement:
    place = _Placement(stack)
    if abs(float(place.axes[:, 0] @ place.axes[:, 1])) > 1e-4:
        raise ValueError(
            f"{path}: the affine's columns and rows are not orthogonal, which DICOM cannot hold; use NIfTI"
        )
    return place


def _check_sources(stack: Stack, sources: list[Dataset], place: _Placement, path: Path) -> None:
    """A source elsewhere in space is a wrong source, and this image would enter the wrong patient's study."""
    if not sources:
        return
    if (kind := dicom_files.kind(sources[0])) != stack.modality:
        raise ValueError(f"{path}: the source {sources[0].filename} is {kind}, the volume {stack.modality}")
    if any(Path(h.filename).resolve().parent == path.resolve() for h in sources):
        raise ValueError(f"{path}: holds the source images; choose another output folder")
    if dicom_files.is_multiframe(sources[0]):
        return
    heights = _heights(sources, place.centres)
    reach = max(float(sources[0].get("SliceThickness") or 0), place.slice_spacing, 1.0)
    if (far := heights.min(axis=1)).max() > 1.5 * reach:
        raise ValueError(
            f"{path}: slice {int(far.argmax())} is {far.max():.1f} mm from the nearest slice of the source "
            f"{Path(sources[0].filename).parent}; is it the right template?"
        )


def _differing(sources: list[Dataset], path: Path) -> list[str]:
    """What is not the same in sources of several kinds, two echoes say, so not said of an image made from them."""
    if len(sources) < 2:
        return []
    names = kinds.differing(frames_of(sources))
    if told := [name for name in names if name not in kinds.POSITIONS]:
        log.warning("%s: the source images differ in %s, which is left out", path, ", ".join(told))
    return [kinds.NESTED.get(name, name) for name in names]


def _heights(sources: list[Dataset], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in mm of each slice centre from each source slice's plane, (slices, sources)."""
    axes = np.array([h.ImageOrientationPatient for h in sources], dtype=np.float64).reshape(-1, 2, 3)
    positions = np.array([h.ImagePositionPatient for h in sources], dtype=np.float64)
    offsets = centres[:, None] - positions
    return np.asarray(np.abs((offsets * np.cross(axes[:, 0], axes[:, 1])).sum(-1)))


def _nearest(sources: list[Dataset], place: _Placement, index: int) -> Dataset | None:
    if len(sources) < 2:
        return sources[0] if sources else None
    return sources[int(_heights(sources, place.centres[index : index + 1]).argmin())]


def _content_key(stack: Stack, sources: list[Dataset], description: str) -> str:
    origin = [str(h.SOPInstanceUID) for h in sources]
    told = repr((origin, description, __version__, stack.units))
    return checksum.of_parts(chain((values.float() for values in stack), (stack.affine, told)))


def _locate(dataset: Dataset, place: _Placement, index: int) -> None:
    decimal = _decimal()
    dataset.ImagePositionPatient = [decimal(v) for v in place.positions[index]]
    dataset.ImageOrientationPatient = [decimal(v) for v in place.axes.T.flatten()]
    dataset.PixelSpacing = [decimal(place.row_spacing), decimal(place.column_spacing)]
    dataset.SpacingBetweenSlices = decimal(place.slice_spacing)
    if not dataset.get("SliceThickness"):
        dataset.SliceThickness = decimal(place.slice_spacing)


def _decimal() -> Callable[[float], Any]:
    from pydicom.valuerep import DSfloat

    return lambda value: DSfloat(float(value) + 0.0, auto_format=True)


def save_dataset(dataset: Dataset, path: Path) -> None:
    """Write one DICOM file, explicit little endian."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
