"""A result never enters the study of another patient: its source is known by what the files held."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
import torch
from dicom_maker import make_series, values

from medrecon import formats
from medrecon.cli import main
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan


def renamed(folder: Path, name: str) -> None:
    """The same images of another patient."""
    study = pydicom.uid.generate_uid()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.StudyInstanceUID = name, study
        dataset.save_as(path)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A scan simulated from a folder whose name tells the patient."""
    make_series(tmp_path / "SMITH_JOHN", size=(16, 16), spacing=(1.0, 1.0))
    renamed(tmp_path / "SMITH_JOHN", "Smith^John")
    argv = ["simulate", str(tmp_path / "SMITH_JOHN"), "-o", str(tmp_path / "m.h5"), "--modality", "ct", "--quiet"]
    assert main([*argv, "--views", "12", "--slices", "1:3"]) == 0
    return tmp_path / "m.h5"


def recon(measured: Path, out: str, *more: str) -> int:
    argv = ["recon", str(measured), "-o", f"{measured.parent / out}/", "--solver", "fbp", "--quiet"]
    return main([*argv, *more])


def test_patient_and_study_come_from_the_very_files(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = measured.parent / "SMITH_JOHN"
    moved = source.rename(measured.parent / "moved")
    assert recon(measured, "out", "--template", str(moved)) == 0
    made = pydicom.dcmread(measured.parent / "out" / "medrecon_0001.dcm")
    known = {pydicom.dcmread(path).StudyInstanceUID for path in moved.iterdir()}
    assert made.PatientName == "Smith^John" and made.StudyInstanceUID in known
    renamed(moved, "Doe^Jane")  # the folder is filled with another patient
    for more in ((), ("--dry-run",)):
        assert recon(measured, "other", "--template", str(moved), *more) == 1
        assert "were changed since" in capsys.readouterr().err
    assert not (measured.parent / "other").exists()


def test_paths_in_a_measurement_are_neither_written_nor_followed(
    measured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert b"SMITH" not in measured.read_bytes() and str(measured.parent).encode() not in measured.read_bytes()
    scan = load_scan(measured)
    assert set(scan.provenance["source"]) == {"dicom_sha256"}
    victim = [str(path) for path in (measured.parent / "SMITH_JOHN").iterdir()]
    forged = replace(scan, provenance={**scan.provenance, "source": {"dicom": victim}})
    save_scan(forged, measured, overwrite=True)
    assert recon(measured, "out") == 0
    assert pydicom.dcmread(measured.parent / "out" / "medrecon_0001.dcm").PatientName == ""


def test_without_the_source_the_patient_stays_empty_and_it_is_said(
    measured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert recon(measured, "out") == 0
    assert "patient and study stay empty" in caplog.text
    assert pydicom.dcmread(measured.parent / "out" / "medrecon_0001.dcm").PatientName == ""


def test_a_source_that_changed_between_reading_and_writing_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    volume = formats.read(tmp_path / "s")
    formats.write(volume, tmp_path / "fits")
    renamed(tmp_path / "s", "Doe^Jane")
    with pytest.raises(ValueError, match="is not the image that this one was made from"):
        formats.write(volume, tmp_path / "out")
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="the source image is gone"):
        formats.write(volume, tmp_path / "out")


def test_a_scan_of_nifti_names_it_by_its_digest(tmp_path: Path) -> None:
    volume = Volume(torch.full((2, 16, 16), 40.0), torch.eye(4, dtype=torch.float64), "HU", "CT")
    formats.write(volume, tmp_path / "SMITH.nii.gz")
    argv = ["simulate", str(tmp_path / "SMITH.nii.gz"), "-o", str(tmp_path / "m.h5"), "--modality", "ct", "--quiet"]
    assert main([*argv, "--views", "12"]) == 0
    with h5py.File(tmp_path / "m.h5") as h5:
        told = json.loads(h5.attrs["provenance"])
    assert list(told["source"]) == ["nifti_sha256"] and "SMITH" not in json.dumps(told)


def bare(folder: Path, series: str | None = None) -> Volume:
    """The image of a folder, without where it is from."""
    return replace(formats.read(folder, series=series), source={})


def merged(folder: Path, **second: object) -> None:
    """A series and another of its kind at the same places under one series UID, their files in changing order."""
    make_series(folder, modality="MR", EchoTime=10.0)
    one = pydicom.dcmread(next(folder.iterdir()))
    same = {n: one[n].value for n in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    make_series(folder.with_name("more"), modality="MR", **{"EchoTime": 10.0, **same, **second})
    for i, path in enumerate(sorted(folder.with_name("more").iterdir())):
        shutil.copy(path, folder / f"{'az'[i % 2]}{path.name}")


def test_a_template_of_two_echoes_gives_a_series_of_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each slice took the echo time of whichever source image came first, and the series was read as two stacks."""
    merged(tmp_path / "s", EchoTime=80.0)
    label = next(iter(formats.info(tmp_path / "s")["series"]))
    formats.write(bare(tmp_path / "s", label), tmp_path / "out", template=tmp_path / "s")
    made = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert all("EchoTime" in d and d.EchoTime is None and d.PatientID == "ID7" for d in made)
    assert "the source images differ in EchoTime, which is left out" in caplog.text
    assert np.array_equal(formats.read(tmp_path / "out").data.numpy(), values(6, (12, 16)))


def test_a_finer_grid_than_the_template_repeats_no_counter(tmp_path: Path) -> None:
    """Two slices of one source image shared its counter, and were read as slices of two volumes."""
    make_series(tmp_path / "s", modality="MR")
    for index, path in enumerate(sorted((tmp_path / "s").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.TemporalPositionIdentifier = index + 1
        dataset.save_as(path)
    volume = bare(tmp_path / "s")
    volume.affine[:3, 2] /= 2
    formats.write(volume, tmp_path / "out", template=tmp_path / "s")
    assert formats.read(tmp_path / "out").data.shape == volume.data.shape


@pytest.mark.parametrize("name", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_template_of_two_patients_is_refused_before_computing(name: str, tmp_path: Path) -> None:
    """Slices of one result went to one patient and the other."""
    make_series(tmp_path / "one", modality="MR")
    merged(tmp_path / "s", **{name: "1.2.3"})
    for act in (
        lambda: formats.check_output(tmp_path / "out", 1, template=tmp_path / "s"),
        lambda: formats.write(bare(tmp_path / "one"), tmp_path / "out", template=tmp_path / "s"),
    ):
        with pytest.raises(ValueError, match=f"differ in {name}.*give a folder of one patient and study"):
            act()
    assert not (tmp_path / "out").exists()


def test_a_template_without_a_place_is_refused_by_name(tmp_path: Path) -> None:
    make_series(tmp_path / "one", modality="MR")
    make_series(tmp_path / "s", modality="MR", ImagePositionPatient="")
    with pytest.raises(ValueError, match=r"im\d: no usable geometry"):
        formats.write(bare(tmp_path / "one"), tmp_path / "out", template=tmp_path / "s")
