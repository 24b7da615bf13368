"""DICOM-CT-PD out: one file a view, so that simulated scans take the same way as real ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from medrecon.core import atomic, checksum
from medrecon.formats.ct_pd import tags
from medrecon.formats.ct_pd.scanner import central_column
from medrecon.formats.ct_pd.views import Projections
from medrecon.formats.dicom.write import save_dataset

if TYPE_CHECKING:
    from pydicom import Dataset

PATTERN = "projection_*.dcm"
LEVELS = 65535


def write_ct_pd(projections: Projections, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write the views as projection_00001.dcm and so on, all of them or none.

    Line integrals are stored as 16-bit numbers over the range of the scan, an arc detector as CYLINDRICAL. Without
    patient data; identifiers come from a hash of the content.

    Raises:
        FileExistsError: the folder holds something.
        ValueError: no data, or NaN or infinite values in it.
    """
    folder = Path(folder)
    if len(projections.data) != len(projections.angles):
        raise ValueError(f"{folder}: the projections hold their geometry only; read the data too")
    if not bool(torch.isfinite(projections.data).all()):
        raise ValueError(f"{folder}: NaN or infinite line integrals cannot be stored")
    slope, intercept = _scale(projections)
    common, key = _common(projections, slope, intercept), _key(projections)
    with atomic.folder(folder, PATTERN, overwrite=overwrite) as temporary:
        for index in range(len(projections.data)):
            image = (projections.data[index].numpy()[::-1, ::-1].T.astype(np.float64) - intercept) / slope
            dataset = _view(projections, index, common, key)
            dataset.add_new("PixelData", "OW", image.round().clip(0, LEVELS).astype("<u2").tobytes())
            save_dataset(dataset, temporary / f"projection_{index + 1:05d}.dcm")
    return folder


def _scale(projections: Projections) -> tuple[float, float]:
    """Slope and intercept as the 16 characters of a decimal string hold them."""
    from pydicom.valuerep import DSfloat

    low, high = float(projections.data.min()), float(projections.data.max())
    slope = math.nextafter(high - low, math.inf) / LEVELS or 1.0
    return float(str(DSfloat(slope, auto_format=True))), float(str(DSfloat(low, auto_format=True)))


def _common(p: Projections, slope: float, intercept: float) -> Dataset:
    """What all views share."""
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage
    from pydicom.valuerep import DSfloat

    rows, columns = p.data.shape[1:]
    common = Dataset()
    common.SOPClassUID, common.Modality, common.Manufacturer = CTImageStorage, "CT", p.manufacturer
    for name in (
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientBirthDate",
        "PatientSex",
        "SeriesNumber",
        "AcquisitionNumber",
        "KVP",
    ):
        setattr(common, name, None)
    common.PatientName = common.PatientID = "SYNTHETIC"
    common.PatientPosition, common.ImageType = p.patient_position, ["DERIVED", "PRIMARY", "AXIAL"]
    common.Rows, common.Columns = columns, rows  # a detector column in each image row
    common.SamplesPerPixel, common.PhotometricInterpretation, common.PixelRepresentation = 1, "MONOCHROME2", 0
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.RescaleSlope, common.RescaleIntercept = DSfloat(slope), DSfloat(intercept)
    for group, creator in tags.MODULES.items():
        common.add_new((group, 0x0010), "LO", creator)
    centre = (
        central_column(p.det_offset[1] / p.det_spacing[1] + (columns + 1) / 2, columns, p.manufacturer),
        p.det_offset[0] / p.det_spacing[0] + (rows + 1) / 2,
    )
    helical = bool(np.ptp(p.heights) > 0)
    for tag, value in (
        (tags.ROWS, rows),
        (tags.COLUMNS, columns),
        (tags.ROW_SPACING, p.det_spacing[0]),
        (tags.COLUMN_SPACING, p.det_spacing[1]),
        (tags.SHAPE, "CYLINDRICAL" if p.detector == "arc" else "FLAT"),
        (tags.DISTANCE, p.source_detector),
        (tags.CENTRE, list(centre)),
        (tags.FOCAL_MODE, p.focal_mode),
        (tags.STEPS, p.views_per_turn),
        (tags.PROJECTION_TYPE, "HELICAL" if helical else "AXIAL"),
        (tags.PROJECTION_GEOMETRY, "FANBEAM"),
        (tags.LOG, "YES"),
    ):
        common.add_new((tag.group, tag.element), tag.vr, value)
    if p.mu_water is not None:
        common.add_new((tags.WATER.group, tags.WATER.element), "DS", DSfloat(p.mu_water, auto_format=True))
    return common


def _view(p: Projections, index: int, common: Dataset, key: str) -> Dataset:
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    dataset = Dataset()
    dataset.update(common)
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[key, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[key, "series"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[key, "frame of reference"])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[key, str(index)])
    dataset.InstanceNumber = index + 1
    turn, out, up = p.focal_shifts[index]
    for tag, value in (
        (tags.ANGLE, (p.angles[index] - math.pi) % (2 * math.pi)),
        (tags.HEIGHT, p.heights[index]),
        (tags.RADIUS, p.radii[index]),
        (tags.ANGLE_SHIFT, turn),
        (tags.RADIUS_SHIFT, out),
        (tags.HEIGHT_SHIFT, up),
    ):
        dataset.add_new((tag.group, tag.element), tag.vr, float(value))
    if p.photons is not None:
        dataset.add_new((tags.PHOTONS.group, tags.PHOTONS.element), "FL", p.photons[index].flip(0).tolist())
    return dataset


def _key(projections: Projections) -> str:
    return checksum.of_content(projections.data, projections.angles, projections.heights, projections.focal_shifts)
