"""DICOM-CT-PD: what the files of one scan share, what tells them apart, and the values of a view."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.formats.ct_pd import tags
from medrecon.formats.dicom.files import check_inflated

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

VENDORS = ("SIEMENS", "GE", "MEDRECON")
SHAPES: dict[str, Literal["flat", "arc"]] = {"CYLINDRICAL": "arc", "SPHERICAL": "arc", "FLAT": "flat"}
"""A spherical detector's rows are at equal angles; at 2 degrees from the middle that is 0.02 mm off a cylinder's."""
SPARSE = 100
"""Samples a byte of a file that compression may give."""
CONSTANT = (tags.ROWS, tags.COLUMNS, tags.COLUMN_SPACING, tags.ROW_SPACING, tags.DISTANCE)


def dataset_of(path: Path, pixels: bool, only: list[str] | None = None) -> Dataset:
    """A file's elements.

    Raises:
        ValueError: damaged, truncated, or no DICOM.
    """
    from pydicom import dcmread

    try:
        check_inflated(path)
        return dcmread(path, stop_before_pixels=not pixels, specific_tags=only)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as DICOM, damaged or truncated ({error})") from error


def is_projection(path: Path) -> bool:
    """Tell whether a DICOM file is a projection, which has the angle of its view, and no image."""
    try:
        return tags.present(dataset_of(path, False), tags.ANGLE)
    except ValueError:  # damaged: reading it says so
        return False


def central_column(tag: float, columns: int, manufacturer: str) -> float:
    """The column, from 1, that the ray through the axis meets: the tag itself; for GE counted from the other end.

    That GE's tag counts from the last column, which is 0, was found on two scans of LDCT-and-Projection-data by
    others; -1.25 columns from the middle, as it gives, is GE's known offset. Its own inverse.
    """
    return columns - tag if manufacturer.upper().startswith("GE") else tag


class Scanner:
    """What all files of a scan share, from one of them.

    Raises:
        ValueError: names the file and the tag.
    """

    @classmethod
    def of(cls, path: Path) -> Scanner:
        return cls(dataset_of(path, False), path)

    def __init__(self, dataset: Dataset, path: Path) -> None:
        self.first, self.path = dataset, path
        if not tags.present(dataset, tags.ANGLE):
            raise ValueError(f"{path}: not a DICOM-CT-PD projection: {tags.ANGLE} is missing")
        self.manufacturer = str(dataset.get("Manufacturer") or "").strip()
        if not self.manufacturer.upper().startswith(VENDORS):
            raise ValueError(
                f"{path}: (0008,0070) Manufacturer is {self.manufacturer!r}; how the tags are filled "
                f"is known for {', '.join(VENDORS)} only"
            )
        self.constants = {tag: tags.number(dataset, tag, path) for tag in CONSTANT}
        self.rows, self.columns = (int(self.constants[t]) for t in (tags.ROWS, tags.COLUMNS))
        if min(self.rows, self.columns) < 1 or self.rows * self.columns > SPARSE * path.stat().st_size:
            raise ValueError(
                f"{path}: {self.rows} detector rows and {self.columns} columns do not fit into a file of "
                f"{path.stat().st_size} bytes"
            )
        self.spacing = (self.constants[tags.ROW_SPACING], self.constants[tags.COLUMN_SPACING])
        self.distance = self.constants[tags.DISTANCE]
        shape = tags.text(dataset, tags.SHAPE, path)
        if shape not in SHAPES:
            raise ValueError(f"{path}: {tags.SHAPE}: expected one of {', '.join(SHAPES)}, got {shape!r}")
        self.shape = SHAPES[shape]
        self.centre = tags.numbers(dataset, tags.CENTRE, path, 2)
        column = central_column(self.centre[0], self.columns, self.manufacturer)
        # Columns and rows are turned round on reading, hence the signs.
        self.offset = (
            (self.centre[1] - (self.rows + 1) / 2) * self.spacing[0],
            (column - (self.columns + 1) / 2) * self.spacing[1],
        )
        self.focal_mode = tags.text(dataset, tags.FOCAL_MODE, path) if tags.present(dataset, tags.FOCAL_MODE) else ""
        self.steps = int(tags.number(dataset, tags.STEPS, path)) if tags.present(dataset, tags.STEPS) else 0
        self.photons = self._photons()
        self.patient_position = str(dataset.get("PatientPosition") or "").strip()
        self.water = self._water()
        self._plausible()

    def _photons(self) -> bool:
        """Whether the files tell the photons of every column; the scan can be read without."""
        if not tags.present(self.first, tags.PHOTONS):
            return False
        if (count := len(tags.numbers(self.first, tags.PHOTONS, self.path, None))) != self.columns:
            log.warning("%s: %s: %d values for %d columns, left out", self.path, tags.PHOTONS, count, self.columns)
        return count == self.columns

    def _water(self) -> float | None:
        if not tags.present(self.first, tags.WATER):
            return None
        water = tags.number(self.first, tags.WATER, self.path)
        if 0.1 <= water <= 0.5:
            log.warning("%s: %s is %g, which only 1/cm can mean", self.path, tags.WATER, water)
            water /= 10
        if not 0.01 <= water <= 0.05:
            raise ValueError(f"{self.path}: {tags.WATER} is {water:g}; water attenuates about 0.02 1/mm")
        return water

    def _plausible(self) -> None:
        radius = tags.number(self.first, tags.RADIUS, self.path)
        for tag, value, low, high in (
            (tags.RADIUS, radius, 100, 2000),
            (tags.DISTANCE, self.distance, radius, 4000),
            (tags.ROW_SPACING, self.spacing[0], 0.1, 50),
            (tags.COLUMN_SPACING, self.spacing[1], 0.1, 50),
        ):
            if not low <= value <= high:
                raise ValueError(f"{self.path}: {tag} is {value:g} mm, expected {low:g} to {high:g} mm; in cm or m?")
        if tags.present(self.first, tags.LOG) and tags.text(self.first, tags.LOG, self.path) == "NO":
            raise ValueError(f"{self.path}: {tags.LOG} is NO: intensities, not line integrals")

    def check(self, dataset: Dataset, path: Path) -> None:
        """Check that a file belongs to this scan."""
        for tag, value in self.constants.items():
            if (other := tags.number(dataset, tag, path)) != value:
                raise ValueError(f"{path}: {tag} is {other:g}, but {value:g} in {self.path}: not of one scan")
        if not np.array_equal(tags.numbers(dataset, tags.CENTRE, path, 2), self.centre):
            raise ValueError(f"{path}: {tags.CENTRE} differs from {self.path}: not of one scan")
        if tags.present(dataset, tags.SPECTRUM) and tags.present(self.first, tags.SPECTRUM):
            one, other = (tags.number(d, tags.SPECTRUM, path) for d in (dataset, self.first))
            if one != other:
                raise ValueError(f"{path}: {tags.SPECTRUM} is {one:g}, but {other:g} in {self.path}: two spectra")

    def place(self, dataset: Dataset, path: Path) -> list[float]:
        """phi, height, radius and the three focal shifts (angle, distance, z) of a view."""
        values = [tags.number(dataset, tag, path) for tag in (tags.ANGLE, tags.HEIGHT, tags.RADIUS)]
        for tag in (tags.ANGLE_SHIFT, tags.RADIUS_SHIFT, tags.HEIGHT_SHIFT):
            none = self.focal_mode in ("", "FFSNONE") and not tags.present(dataset, tag)
            values.append(0.0 if none else tags.number(dataset, tag, path))
        return values

    def values(self, dataset: Dataset, path: Path) -> Tensor:
        """(R, D) line integrals of a view, rows along +z, columns along the detector axis."""
        shape = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
        # Published files hold one detector column in each image row; the manual describes the reverse.
        turned = shape == (self.columns, self.rows)
        if not turned and shape != (self.rows, self.columns):
            raise ValueError(
                f"{path}: an image of {shape[0]} x {shape[1]}, but {self.rows} detector rows and {self.columns} columns"
            )
        image = _pixels(dataset, shape, path)
        slope, intercept = (_rescale(dataset, name, path) for name in ("RescaleSlope", "RescaleIntercept"))
        if not np.isfinite([slope, intercept]).all() or slope == 0:
            raise ValueError(f"{path}: RescaleSlope {slope} and RescaleIntercept {intercept} make no numbers")
        image = (image.T if turned else image)[::-1, ::-1].astype(np.float64)
        return torch.from_numpy((image * slope + intercept).astype(np.float32))


def _rescale(dataset: Dataset, name: str, path: Path) -> float:
    """Line integrals are stored as whole numbers: without this they are not known."""
    value = dataset.get(name)
    if value is None or value == "":
        raise ValueError(f"{path}: {name} is missing or empty; what its values mean is not known without it")
    return float(value)


def _pixels(dataset: Dataset, shape: tuple[int, int], path: Path) -> NDArray[np.integer[Any]]:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (syntax.is_compressed or not syntax.is_little_endian):
        try:
            decoded = np.asarray(dataset.pixel_array)
        except Exception as error:
            raise ValueError(f"{path}: the pixels cannot be decoded ({error})") from error
        if decoded.shape != shape:
            raise ValueError(f"{path}: pixels of shape {decoded.shape}, expected {shape}")
        return decoded
    if dataset.get("BitsAllocated", 16) != 16:
        raise ValueError(f"{path}: BitsAllocated is {dataset.BitsAllocated}, expected 16")
    raw, wanted = dataset.get("PixelData") or b"", 2 * shape[0] * shape[1]
    if len(raw) < wanted:
        raise ValueError(f"{path}: {len(raw)} bytes of pixels, expected {wanted}: truncated")
    return np.frombuffer(raw[:wanted], "<i2" if dataset.get("PixelRepresentation") == 1 else "<u2").reshape(shape)
