"""A file that medrecon does not read is told by what it is, with what to do."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_maker import make_series
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MediaStorageDirectoryStorage

from medrecon import formats


@pytest.mark.parametrize(
    ("name", "start", "what"),
    [
        ("a.nrrd", b"NRRD0004\n", "convert it to NIfTI"),
        ("a.mha", b"ObjectType = Image\n", "convert it to NIfTI"),
        ("a.hdr", b"\x5c\1\0\0", "join them"),
        ("a.img", b"\0\0\0\0", "join them"),
        ("A.TAR.GZ", b"\x1f\x8b\x08", "unpack it"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "unpack it"),
        ("a.mgz", b"\x1f\x8b\x08", "mri_convert"),
        ("._im0001", b"\0\5\x16\7\0\2\0\0Mac OS X", "without ._"),
        ("a.png", b"\x89PNG\r\n", "lost their units"),
    ],
)
def test_other_files(name: str, start: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(start + bytes(400))
    with pytest.raises(ValueError, match=f"{name}: .*{what}"):
        formats.read(tmp_path / name)


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "u1"])
def test_an_array_of_an_image_is_not_sent_to_import(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "hu.npy", np.zeros((3, 16, 16), kind))
    with pytest.raises(ValueError, match=r"hu\.npy: .*neither voxel size nor units; save an image"):
        formats.read(tmp_path / "hu.npy")
    np.save(tmp_path / "k.npy", np.zeros((3, 16, 16), "c8"))
    with pytest.raises(ValueError, match=r"k\.npy: .*medrecon import"):
        formats.read(tmp_path / "k.npy")


def test_a_zipped_series_and_a_bundle_of_arrays(tmp_path: Path) -> None:
    make_series(tmp_path / "s", count=2)
    with pytest.raises(ValueError, match=r"s\.zip: .*unpack it first, and give the folder"):
        formats.read(shutil.make_archive(str(tmp_path / "s"), "zip", tmp_path / "s"))
    np.savez(tmp_path / "a.npz", image=np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"a\.npz: .*save an image as NIfTI"):
        formats.read(tmp_path / "a.npz")


def test_a_folder_of_nifti_names_a_file_of_it(tmp_path: Path) -> None:
    for name in ("._head.nii.gz", "head.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"it holds head\.nii\.gz; give that file"):
        formats.read(tmp_path)


def test_a_dicomdir_leads_to_its_folder(tmp_path: Path) -> None:
    make_series(tmp_path / "disc", count=2)
    index = pydicom.Dataset()
    index.SOPClassUID, index.SOPInstanceUID = MediaStorageDirectoryStorage, pydicom.uid.generate_uid()
    index.file_meta = FileMetaDataset()
    index.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    index.save_as(tmp_path / "disc" / "DICOMDIR", enforce_file_format=True)
    assert formats.read(tmp_path / "disc").data.shape == (2, 12, 16)
    with pytest.raises(ValueError, match="give the folder that it lies in"):
        formats.read(tmp_path / "disc" / "DICOMDIR")
