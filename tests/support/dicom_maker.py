"""Synthetic DICOM series with known values and places, made with pydicom alone."""

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

OBLIQUE = np.array([[0.96, 0.28, 0.0], [-0.28 * 0.8, 0.96 * 0.8, 0.6]])  # orthonormal rows: along columns, along rows


def make_series(
    folder: Path,
    count: int = 6,
    size: tuple[int, int] = (12, 16),
    modality: str = "CT",
    axes: NDArray[np.float64] = OBLIQUE,
    spacing: tuple[float, float] = (0.8, 1.25),
    step: NDArray[np.float64] | float = 2.5,
    prefix: str = "im",
    **attributes: object,
) -> NDArray[np.float64]:
    """Write slices with shuffled names; `step` is a distance along the normal or an LPS vector.

    Returns:
        The LPS position of the first voxel of each slice, (count, 3). Values are `values(count, size)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(axes[0], axes[1])
    vector = normal * step if isinstance(step, float) else step
    positions = np.array([-30.0, 20.0, 5.0]) + np.arange(count)[:, None] * vector
    stored = values(count, size) + (1024 if modality == "CT" else 0)
    uid, frame, study = (generate_uid() for _ in range(3))
    names = np.random.default_rng(1).permutation(count)
    for i in range(count):
        dataset = pydicom.Dataset()
        dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), uid
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = study, frame
        dataset.Modality, dataset.PatientName, dataset.PatientID = modality, "Maker^Test", "ID7"
        dataset.SeriesDescription, dataset.SeriesNumber = "synthetic", 3
        dataset.StudyDate = dataset.StudyTime = dataset.StudyID = ""
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"]
        dataset.InstanceNumber = count - i  # misleading on purpose
        dataset.ImagePositionPatient = [f"{v:.9g}" for v in positions[i]]
        dataset.ImageOrientationPatient = [f"{v:.9g}" for v in axes.flatten()]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing), 2.5
        dataset.Rows, dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        if modality == "CT":
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.SmallestImagePixelValue = 0
        dataset.add_new(0x00091001, "LO", "private")
        dataset.PixelData = stored[i].astype("<u2").tobytes()
        for name, value in attributes.items():
            setattr(dataset, name, value)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        dataset.file_meta = meta
        dataset.save_as(folder / f"{prefix}{names[i]}", enforce_file_format=True)
    return positions


def values(count: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """What the series holds: HU from -1000, or 0 and above where MR adds nothing."""
    return np.arange(count * size[0] * size[1]).reshape(count, *size) * 3 % 2000


def file_at(folder: Path, index: int) -> Path:
    """The file of slice `index`, counted along the normal."""
    files = [(pydicom.dcmread(f), f) for f in folder.iterdir()]
    axes = np.array(files[0][0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    return sorted(files, key=lambda p: float(np.array(p[0].ImagePositionPatient, dtype=float) @ normal))[index][1]
