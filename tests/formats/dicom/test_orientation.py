"""MR from raw data, with no DICOM source: every orientation, one marked corner, through DICOM, NIfTI and DICOM."""

import subprocess
from pathlib import Path

import fastmri_maker as maker
import numpy as np
import pydicom
import pytest
import torch
from dicom_tools import assert_valid, tool

from medrecon import formats
from medrecon.core.volume import Volume
from medrecon.formats.raw_data import read_raw
from medrecon.pipeline import reconstruct

A, B = np.deg2rad(20), np.deg2rad(-35)
TURN = np.array([[np.cos(A), -np.sin(A), 0], [np.sin(A), np.cos(A), 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, np.cos(B), -np.sin(B)], [0, np.sin(B), np.cos(B)]]
)
# Columns: where columns, rows and slices step to, in RAS.
AXES = {
    "axial": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1.0]]),
    "axial, from the feet": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, -1.0]]),
    "sagittal": np.array([[0, 0, -1], [-1, 0, 0], [0, -1, 0.0]]),
    "coronal": np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0.0]]),
    "oblique": TURN @ np.diag([-1.0, -1.0, 1.0]),
}
SPACING, CORNER, SHAPE = (0.9, 1.25, 4.5), np.array([31.25, -17.5, 8.125]), (3, 10, 14)
LPS = np.diag([-1.0, -1.0, 1.0])


def volume_at(axes: np.ndarray, slices: int = 3) -> Volume:
    """Grey, with one bright voxel in a corner: first row, last column, first slice."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3], affine[:3, 3] = torch.from_numpy(axes * SPACING), torch.from_numpy(CORNER)
    data = 1e-5 * (1 + torch.rand((slices, *SHAPE[1:]), generator=torch.Generator().manual_seed(0)))
    data[0, 0, -1] = 1e-4
    return Volume(data, affine, "a.u.", "MR")


def mark(volume: Volume) -> np.ndarray:
    """Where the bright voxel is, RAS mm."""
    z, y, x = np.argwhere(volume.data.numpy() == volume.data.numpy().max())[0]
    return (volume.affine @ torch.tensor([x, y, z, 1.0], dtype=torch.float64))[:3].numpy()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("name", AXES)
def test_round_trip_keeps_the_marked_corner(name: str, slices: int, tmp_path: Path) -> None:
    volume = volume_at(AXES[name], slices)
    expected = CORNER + AXES[name][:, 0] * SPACING[0] * (SHAPE[2] - 1)
    np.testing.assert_allclose(mark(volume), expected)
    formats.write(volume, tmp_path / "a")
    first = formats.read(tmp_path / "a")
    formats.write(first, tmp_path / "b.nii.gz")
    second = formats.read(tmp_path / "b.nii.gz")
    torch.testing.assert_close(second.affine, first.affine, atol=1e-5, rtol=0)
    formats.write(second, tmp_path / "c")
    third = formats.read(tmp_path / "c")
    torch.testing.assert_close(third.affine, first.affine, atol=1e-5, rtol=0)
    for v in (first, second, third):
        np.testing.assert_allclose(mark(v), expected, atol=1e-5)
        assert float(v.data.max()) == pytest.approx(1e-4, rel=1e-4) and v.spacing == pytest.approx(SPACING)
        assert float((v.data.flatten().sort().values - volume.data.flatten().sort().values).abs().max()) < 1e-9
    handed = np.linalg.det(LPS @ AXES[name]) > 0
    if handed and slices > 1:  # otherwise the slices come back in the other order, along DICOM's normal
        torch.testing.assert_close(first.affine, volume.affine, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", AXES)
def test_position_is_the_centre_of_the_first_pixel_in_lps(name: str, tmp_path: Path) -> None:
    formats.write(volume_at(AXES[name]), tmp_path / "a")
    for index, file in enumerate(sorted((tmp_path / "a").iterdir())):
        header = pydicom.dcmread(file)
        place = LPS @ (CORNER + index * SPACING[2] * AXES[name][:, 2])
        np.testing.assert_allclose(np.array(header.ImagePositionPatient, float), place, atol=1e-9)
        np.testing.assert_allclose(
            np.array(header.ImageOrientationPatient, float).reshape(2, 3).T, (LPS @ AXES[name])[:, :2], atol=1e-9
        )
        assert [float(v) for v in header.PixelSpacing] == [SPACING[1], SPACING[0]]  # rows' step first
    assert_valid(tmp_path / "a")


@pytest.mark.parametrize("name", AXES)
def test_independent_readers_find_the_mark(name: str, tmp_path: Path) -> None:
    """SimpleITK reads the DICOM series, nibabel the NIfTI file, dcm2niix converts the first to the second."""
    import nibabel as nib

    sitk = pytest.importorskip("SimpleITK")
    volume = volume_at(AXES[name])
    formats.write(volume, tmp_path / "a")
    formats.write(volume, tmp_path / "b.nii")
    reader = sitk.ImageSeriesReader()
    image = sitk.ReadImage(reader.GetGDCMSeriesFileNames(str(tmp_path / "a")))
    z, y, x = np.argwhere((array := sitk.GetArrayFromImage(image)) == array.max())[0]
    place = np.array(image.TransformIndexToPhysicalPoint((int(x), int(y), int(z))))
    np.testing.assert_allclose(LPS @ place, mark(volume), atol=1e-4)
    subprocess.run(
        [tool("dcm2niix"), "-o", str(tmp_path), "-f", "c", "-b", "n", str(tmp_path / "a")],
        check=True,
        capture_output=True,
    )
    for file in ("b.nii", "c.nii"):
        nifti = nib.load(tmp_path / file)
        values = np.asarray(nifti.dataobj)
        voxel = np.argwhere(values == values.max())[0]
        np.testing.assert_allclose((nifti.affine @ [*voxel, 1])[:3], mark(volume), atol=1e-4)


def test_from_a_fastmri_file(tmp_path: Path) -> None:
    """Raw k-space to a DICOM series that the validator passes, which says its scale, and has no patient."""
    stack = 1e-5 * maker.kspace(3, 4, (64, 46), 4)
    file = maker.write(tmp_path / "f.h5", stack.astype(np.complex64), (32, 32), padding=4)
    volume, _ = reconstruct(read_raw(file), "zero-filled")
    formats.write(volume, tmp_path / "out", description="zero-filled(iterations=15)")
    assert_valid(tmp_path / "out")
    again = formats.read(tmp_path / "out")
    torch.testing.assert_close(again.affine, volume.affine, atol=1e-6, rtol=0)
    high = float(volume.data.max())
    assert float((again.data - volume.data).abs().max()) < high / 65535
    header = pydicom.dcmread(tmp_path / "out" / "medrecon_0001.dcm")
    assert header.SOPClassUID == pydicom.uid.MRImageStorage and header.Modality == "MR"
    assert (header.Rows, header.Columns) == (32, 32) and float(header.SliceThickness) == 4.5
    assert float(header.RescaleSlope) == pytest.approx(high / 65535, rel=1e-6) and header.RescaleType == "US"
    assert "zero-filled" in header.SeriesDescription and "Arbitrary units" in header.DerivationDescription
    brightest = pydicom.dcmread(tmp_path / "out" / "medrecon_0003.dcm")
    assert brightest.pixel_array.max() == 65535 and brightest.RescaleSlope == header.RescaleSlope
    assert "SECRET" not in str(header) and not header.PatientName
    for name in ("ImageType", "ScanningSequence", "SequenceVariant", "FrameOfReferenceUID", "StudyInstanceUID"):
        assert header[name].value, name  # type 1
    for name in ("ScanOptions", "MRAcquisitionType", "EchoTime", "RepetitionTime", "EchoTrainLength"):
        assert name in header, name  # type 2, here unknown
    assert float(header.WindowWidth) < 1 and header.VOILUTFunction == "LINEAR_EXACT"
