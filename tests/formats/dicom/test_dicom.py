"""DICOM series: values, units and place in and out, against the headers, SimpleITK, dcm2niix and dciodvfy."""

import logging
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from dicom_maker import OBLIQUE, file_at, make_series, values
from dicom_tools import assert_valid, tool
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, JPEGLossless, RLELossless, generate_uid

from medrecon import RESEARCH_USE_ONLY
from medrecon.core.volume import Volume
from medrecon.formats import read, write
from medrecon.formats.dicom import files as dicom_files
from medrecon.formats.dicom import series as dicom_series

FLIP = np.diag([-1.0, -1.0, 1.0])


def ras(volume: Volume, voxel: tuple[int, int, int]) -> np.ndarray:
    return (volume.affine @ torch.tensor([*voxel, 1.0], dtype=torch.float64))[:3].numpy()


def assert_in_place(volume: Volume) -> None:
    """The affine puts every slice's first and last voxel where that slice's own header does."""
    for z, name in enumerate(volume.source["dicom"]):
        header = pydicom.dcmread(name, stop_before_pixels=True)
        axes = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        rows, columns = header.Rows - 1, header.Columns - 1
        corner = np.array(header.ImagePositionPatient, dtype=float)
        far = corner + axes[0] * columns * header.PixelSpacing[1] + axes[1] * rows * header.PixelSpacing[0]
        np.testing.assert_allclose(ras(volume, (0, 0, z)), FLIP @ corner, atol=2e-3)
        np.testing.assert_allclose(ras(volume, (columns, rows, z)), FLIP @ far, atol=2e-3)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_series_has_its_values_units_and_place(tmp_path: Path, modality: str) -> None:
    make_series(tmp_path / "s", modality=modality)
    volume = read(tmp_path / "s")
    assert volume.units == ("HU" if modality == "CT" else "a.u.") and volume.modality == modality
    np.testing.assert_array_equal(volume.data.numpy(), values(6, (12, 16)))
    assert volume.spacing == pytest.approx((1.25, 0.8, 2.5))
    assert_in_place(volume)
    assert "Maker" not in repr(volume.source) and "ID7" not in repr(volume.source)


def test_gantry_tilt_stays_in_the_affine(tmp_path: Path) -> None:
    angle = np.deg2rad(15)
    axes = np.array([[1.0, 0, 0], [0, np.cos(angle), -np.sin(angle)]])
    make_series(tmp_path / "s", axes=axes, step=np.array([0.0, 0.0, 3.0]))
    volume = read(tmp_path / "s")
    assert_in_place(volume)
    column = volume.affine[:3, 2].numpy()
    cosine = column @ np.cross(*(FLIP @ axes.T).T) / np.linalg.norm(column)
    assert np.rad2deg(np.arccos(cosine)) == pytest.approx(15, abs=1e-4)
    write(volume, tmp_path / "out")
    again = read(tmp_path / "out")
    torch.testing.assert_close(again.affine, volume.affine, atol=1e-6, rtol=0)


def test_affine_equals_highdicoms(tmp_path: Path) -> None:
    import highdicom as hd

    make_series(tmp_path / "s")
    volume = read(tmp_path / "s")
    theirs = hd.get_volume_from_series([pydicom.dcmread(f) for f in sorted((tmp_path / "s").iterdir())])
    mine = np.diag([-1.0, -1, 1, 1]) @ volume.affine.numpy()
    z, y, x = 4, 3, 7
    place = mine @ [x, y, z, 1]
    index = np.rint(np.linalg.inv(theirs.affine) @ place).astype(int)[:3]
    np.testing.assert_allclose(theirs.affine @ [*index, 1], place, atol=1e-6)
    assert theirs.array[tuple(index)] == volume.data[z, y, x]


def test_missing_slice_is_named_and_the_parts_can_be_read(tmp_path: Path) -> None:
    make_series(tmp_path / "s", count=9)
    before, gone = file_at(tmp_path / "s", 3), file_at(tmp_path / "s", 4)
    gone.unlink()
    with pytest.raises(ValueError, match=r"1 slice\(s\) missing, index 4") as error:
        read(tmp_path / "s")
    assert str(before) in str(error.value)
    labels = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    parts = [read(tmp_path / "s", series=label) for label in labels]
    assert [len(p.data) for p in parts] == [4, 4]
    np.testing.assert_array_equal(parts[1].data.numpy(), values(9, (12, 16))[5:])
    assert_in_place(parts[1])


def test_duplicate_position_names_both_files(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    original = file_at(tmp_path / "s", 2)
    shutil.copy(original, tmp_path / "s" / "copy")
    with pytest.raises(ValueError, match="two slices at one position") as error:
        read(tmp_path / "s")
    assert str(original) in str(error.value) and "copy" in str(error.value)


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    moved = file_at(tmp_path / "s", 5)
    dataset = pydicom.dcmread(moved)
    normal = np.cross(*OBLIQUE)
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in np.array(dataset.ImagePositionPatient, float) + 0.7 * normal]
    dataset.save_as(moved)
    with pytest.raises(ValueError, match="not uniform between slice 4"):
        read(tmp_path / "s")


def test_stacks_of_two_spacings_can_be_read_apart(tmp_path: Path) -> None:
    """Four slices 5 mm apart, then three of 2.5 mm: each is in one part."""
    make_series(tmp_path / "s", count=7)
    normal, heights = np.cross(*OBLIQUE), [0, 5, 10, 15, 17.5, 20, 22.5]
    for path, height in zip([file_at(tmp_path / "s", i) for i in range(7)], heights, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in np.array([-30.0, 20.0, 5.0]) + height * normal]
        dataset.save_as(path)
    with pytest.raises(ValueError, match="spacing is not uniform") as error:
        read(tmp_path / "s")
    labels = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    parts = [read(tmp_path / "s", series=label) for label in labels]
    assert [len(p.data) for p in parts] == [4, 3]
    assert [float(p.affine[:3, 2].norm()) for p in parts] == pytest.approx([5.0, 2.5], abs=1e-4)


@pytest.mark.parametrize(("step", "off", "fits"), [(10.0, 0.8, True), (10.0, 1.2, False), (0.3, 0.06, False)])
def test_how_far_a_slice_may_stand_off_the_line(step: float, off: float, fits: bool, tmp_path: Path) -> None:
    """A tenth of the spacing."""
    make_series(tmp_path / "s", step=step)
    dataset = pydicom.dcmread(path := file_at(tmp_path / "s", 3))
    dataset.ImagePositionPatient = [
        f"{v:.6f}" for v in np.array(dataset.ImagePositionPatient, float) + off * OBLIQUE[0]
    ]
    dataset.save_as(path)
    if fits:
        assert len(read(tmp_path / "s").data) > 4
    else:
        with pytest.raises(ValueError, match="not on a line"):
            read(tmp_path / "s")


def test_slice_off_the_line_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    moved = file_at(tmp_path / "s", 3)
    dataset = pydicom.dcmread(moved)
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in np.array(dataset.ImagePositionPatient, float) + 3 * OBLIQUE[0]]
    dataset.save_as(moved)
    with pytest.raises(ValueError, match="not on a line") as error:
        read(tmp_path / "s")
    assert moved.name in str(error.value)


def test_mixed_series_are_listed_and_chosen(tmp_path: Path) -> None:
    make_series(tmp_path / "s", prefix="a", SeriesDescription="thin")
    make_series(tmp_path / "s", prefix="b", count=4, SeriesDescription="thick")
    make_series(tmp_path / "s", prefix="c", count=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(ValueError, match="2 image stacks; choose one with series=LABEL") as error:
        read(tmp_path / "s")
    label = next(line.split(":")[0].strip() for line in str(error.value).splitlines() if "thick" in line)
    assert "6 slice(s)" in str(error.value)
    chosen = read(tmp_path / "s", series=label)
    assert len(chosen.data) == 4
    uid = str(pydicom.dcmread(chosen.source["dicom"][0]).SeriesInstanceUID)
    assert uid not in str(error.value)  # it may lead to the patient
    assert len(read(tmp_path / "s", series=uid).data) == 4
    with pytest.raises(ValueError, match="no image stack is called 'nonsense'"):
        read(tmp_path / "s", series="nonsense")


def test_echoes_in_one_series_are_apart(tmp_path: Path) -> None:
    same = {"SeriesInstanceUID": generate_uid(), "modality": "MR"}
    make_series(tmp_path / "s", prefix="a", EchoNumbers=1, **same)  # type: ignore[arg-type]
    make_series(tmp_path / "s", prefix="b", EchoNumbers=2, **same)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 image stacks") as error:
        read(tmp_path / "s")
    label = str(error.value).splitlines()[1].split(":")[0].strip()
    assert len(read(tmp_path / "s", series=label).data) == 6


def test_single_slice_takes_its_thickness(tmp_path: Path) -> None:
    make_series(tmp_path / "s", count=1, SliceThickness=4)
    assert read(next((tmp_path / "s").iterdir())).spacing[2] == pytest.approx(4)
    make_series(tmp_path / "t", count=1, SliceThickness=4, SpacingBetweenSlices=5)
    assert read(tmp_path / "t").spacing[2] == pytest.approx(5)


def test_padding_does_not_become_tissue(tmp_path: Path) -> None:
    make_series(tmp_path / "s", RescaleIntercept=-2500)
    expected = np.maximum(values(6, (12, 16)) + 1024 - 2500, -1024)
    np.testing.assert_array_equal(read(tmp_path / "s").data.numpy(), expected)


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no DICOM file"):
        read(tmp_path / "empty")
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(ValueError, match="not an image medrecon reads"):
        read(tmp_path / "x.txt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "none")
    make_series(tmp_path / "s")
    cut = file_at(tmp_path / "s", 1)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged") as error:
        read(tmp_path / "s")
    assert cut.name in str(error.value)
    make_series(tmp_path / "n", PixelSpacing=None)
    with pytest.raises(ValueError, match="no usable geometry"):
        read(tmp_path / "n")


def test_missing_codec_names_its_package(tmp_path: Path) -> None:
    make_series(tmp_path / "s", count=1)
    file = next((tmp_path / "s").iterdir())
    dataset = pydicom.dcmread(file)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLossless
    dataset.save_as(file)
    if pydicom.pixels.get_decoder(JPEGLossless).is_available:
        pytest.skip("the decoder is installed here")
    with pytest.raises(ValueError, match=r"JPEG Lossless.*pip install python-gdcm"):
        read(file)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_equals_plain(tmp_path: Path, syntax: str) -> None:
    make_series(tmp_path / "s", size=(64, 64))
    plain = read(tmp_path / "s")
    for file in (tmp_path / "s").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(file)
    assert torch.equal(read(tmp_path / "s").data, plain.data)


@pytest.mark.parametrize("reverse", [False, True])
def test_multiframe_equals_single_frames(tmp_path: Path, reverse: bool) -> None:
    import highdicom as hd

    plain_folder = tmp_path / "s"
    make_series(
        plain_folder,
        PatientBirthDate="",
        PatientSex="",
        ReferringPhysicianName="",
        AccessionNumber="",
        Manufacturer="",
        AcquisitionNumber=1,
        KVP="",
        BurnedInAnnotation="NO",
        PatientPosition="HFS",
        ContentDate="20200101",
        ContentTime="120000",
        PositionReferenceIndicator="",
    )
    plain = read(plain_folder)
    files = plain.source["dicom"][:: -1 if reverse else 1]
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(f) for f in files], generate_uid(), 7, generate_uid(), 1
    )
    enhanced.save_as(tmp_path / "multi.bin")
    volume = read(tmp_path / "multi.bin")
    assert torch.equal(volume.data, plain.data)
    torch.testing.assert_close(volume.affine, plain.affine, atol=1e-6, rtol=0)
    write(volume, tmp_path / "out")
    assert torch.equal(read(tmp_path / "out").data, plain.data)
    assert pydicom.dcmread(tmp_path / "out" / "medrecon_0001.dcm").PatientID == "ID7"
    assert_valid(tmp_path / "out")


def test_derived_series_says_what_it_is(tmp_path: Path) -> None:
    make_series(tmp_path / "s", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    volume = read(tmp_path / "s")
    write(volume, f"{tmp_path}/out.v2/", description="TV, 60 views")
    files = sorted((tmp_path / "out.v2").iterdir())
    assert [f.name for f in files[:2]] == ["medrecon_0001.dcm", "medrecon_0002.dcm"]
    for name, source_name in zip(files, volume.source["dicom"], strict=True):
        made, source = pydicom.dcmread(name), pydicom.dcmread(source_name)
        assert made.SOPInstanceUID != source.SOPInstanceUID and made.SeriesInstanceUID != source.SeriesInstanceUID
        assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
        for same in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
            assert made[same].value == source[same].value
        assert list(made.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        reference = made.SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert made.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
        for text in (made.SeriesDescription, made.ImageComments, made.DerivationDescription):
            assert str(text).startswith(RESEARCH_USE_ONLY)
        assert len(made.SeriesDescription) <= 64 and "TV, 60 views" in made.DerivationDescription
        assert "SmallestImagePixelValue" not in made and (0x0009, 0x1001) not in made
    assert len({pydicom.dcmread(f).SOPInstanceUID for f in files}) == len(files)
    assert_valid(tmp_path / "out.v2")


def test_uids_follow_the_content(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    volume = read(tmp_path / "s")

    def uid(v: Volume, name: str) -> str:
        return str(pydicom.dcmread(write(v, tmp_path / name) / "medrecon_0001.dcm").SOPInstanceUID)

    assert uid(volume, "a") == uid(volume, "b") != uid(volume.map(lambda d: d + 1), "c")


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_other_grid_over_the_same_place(tmp_path: Path, modality: str) -> None:
    """Half the matrix over the same field of view, and some of the slices."""
    make_series(tmp_path / "s", modality=modality)
    source = read(tmp_path / "s").slices(2, 5)
    affine = source.affine.clone()
    affine[:3, 3] += (affine[:3, 0] + affine[:3, 1]) / 2
    affine[:3, :2] *= 2
    data = source.data.reshape(3, 6, 2, 8, 2).mean((2, 4))
    coarse = Volume(data, affine, source.units, source.modality, source.source)
    write(coarse, tmp_path / "out")
    again = read(tmp_path / "out")
    torch.testing.assert_close(again.affine, affine, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.data, data, atol=0.51 if modality == "CT" else 0.02, rtol=0)
    made = pydicom.dcmread(tmp_path / "out" / "medrecon_0001.dcm")
    expected = pydicom.dcmread(source.source["dicom"][2]).SOPInstanceUID
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == expected
    assert_valid(tmp_path / "out")


@pytest.mark.parametrize(("modality", "units"), [("CT", "HU"), ("MR", "a.u.")])
def test_without_a_source_it_is_valid_and_anonymous(tmp_path: Path, modality: str, units: str) -> None:
    affine = torch.diag(torch.tensor([-0.9, 0.7, 3.0, 1.0], dtype=torch.float64))  # left-handed in LPS
    affine[:3, 3] = torch.tensor([10.0, -20.0, 30.0])
    data = torch.linspace(-900, 1500, 2 * 8 * 10).reshape(2, 8, 10)
    volume = Volume(data, affine, units, modality)  # type: ignore[arg-type]
    write(volume, tmp_path / "out")
    again = read(tmp_path / "out")
    flipped = again.affine.clone()  # slices come back along the normal, so here from the other end
    flipped[:3, 3] += flipped[:3, 2]
    flipped[:3, 2] *= -1
    torch.testing.assert_close(flipped, affine, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.data.flip(0), data, atol=0.51, rtol=0)
    made = pydicom.dcmread(tmp_path / "out" / "medrecon_0001.dcm")
    assert made.Manufacturer == "medrecon" and not made.PatientName and not made.PatientID
    assert_valid(tmp_path / "out")


def test_ct_clipping_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_series(tmp_path / "s")
    volume = read(tmp_path / "s").map(lambda d: torch.where(d == d[0, 0, 1], -1500.0, d))
    with caplog.at_level(logging.WARNING):
        write(volume, tmp_path / "out")
    assert f"{int((volume.data < -1024).sum())} voxels below -1024 HU" in caplog.text
    assert read(tmp_path / "out").data.min() == -1024


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    make_series(tmp_path / "mr", modality="MR")
    volume = read(tmp_path / "s")
    with pytest.raises(ValueError, match="magnitude"):
        write(read(tmp_path / "mr").map(lambda d: d + 0j), tmp_path / "o")
    with pytest.raises(ValueError, match="NaN or infinite values, first in slice 3"):
        write(volume.map(lambda d: torch.where(d == d[3, 5, 5], torch.nan, d)), tmp_path / "o")
    with pytest.raises(ValueError, match="HU or MR in a"):
        write(replace(volume, units="1/mm"), tmp_path / "o")
    with pytest.raises(ValueError, match="is MR, the volume CT"):
        write(volume, tmp_path / "o", template=tmp_path / "mr")
    far = volume.affine.clone()
    far[:3, 3] += 500
    with pytest.raises(ValueError, match="is it the right template"):
        write(replace(volume, affine=far), tmp_path / "o")
    skewed = volume.affine.clone()
    skewed[:3, 0] += 0.2 * skewed[:3, 1]
    with pytest.raises(ValueError, match="not orthogonal"):
        write(replace(volume, affine=skewed), tmp_path / "o")
    with pytest.raises(ValueError, match="unknown output type"):
        write(volume, tmp_path / "o.png")
    with pytest.raises(ValueError, match="holds the source"):
        write(volume, tmp_path / "s", overwrite=True)
    assert not (tmp_path / "o").exists() and len(list((tmp_path / "s").iterdir())) == 6


def test_template_may_have_a_gap(tmp_path: Path) -> None:
    make_series(tmp_path / "s", count=9)
    volume = replace(read(tmp_path / "s").slices(0, 4), source={})
    file_at(tmp_path / "s", 6).unlink()
    write(volume, tmp_path / "out", template=tmp_path / "s")
    assert pydicom.dcmread(tmp_path / "out" / "medrecon_0001.dcm").PatientID == "ID7"


@pytest.mark.parametrize(
    ("name", "shape", "modality", "low", "high"),
    [
        ("J2K_pixelrep_mismatch.dcm", (1, 512, 512), "CT", -1024, 1896),
        ("CT_small.dcm", (1, 128, 128), "CT", -896, 1167),
        ("examples_overlay.dcm", (1, 300, 484), "MR", 0, 1123),
        ("MR_small_jp2klossless.dcm", (1, 64, 64), "MR", 127, 2145),
        ("MR_small_bigendian.dcm", (1, 64, 64), "MR", 127, 2145),
        ("MR_small_implicit.dcm", (1, 64, 64), "MR", 127, 2145),
    ],
)
def test_real_scans_of_the_pydicom_wheel(
    tmp_path: Path, name: str, shape: tuple[int, ...], modality: str, low: float, high: float
) -> None:
    volume = read(get_testdata_file(name, download=False))
    assert volume.data.shape == shape and volume.modality == modality
    assert (volume.data.min(), volume.data.max()) == (low, high)
    write(volume, tmp_path / "out", description="test")
    again = read(tmp_path / "out")
    assert torch.equal(again.data, volume.data)
    torch.testing.assert_close(again.affine, volume.affine, atol=1e-6, rtol=0)
    assert_valid(tmp_path / "out")


def test_real_tilted_head_has_two_stacks(corpus: Path, tmp_path: Path) -> None:
    """A GE head: 14 slices of 4 mm and 14 of 7 mm in one series, gantry tilted by 18.5 degrees."""
    with pytest.raises(ValueError, match="2 image stacks") as error:
        read(corpus / "test/ct/ct_head_ge")
    label = str(error.value).splitlines()[1].split(":")[0].strip()
    volume = read(corpus / "test/ct/ct_head_ge", series=label)
    assert volume.data.shape == (14, 512, 512)
    assert_in_place(volume)
    write(volume, tmp_path / "out")
    again = read(tmp_path / "out")
    assert torch.equal(again.data, volume.data)
    torch.testing.assert_close(again.affine, volume.affine, atol=1e-6, rtol=0)
    assert_valid(tmp_path / "out")


@pytest.mark.parametrize(("case", "part"), [("mri/mr_fnndsc_adi_t2", 2), ("ct/ct_acrin_flt_013", 0)])
def test_real_series_overlays_for_simpleitk_and_dcm2niix(corpus: Path, tmp_path: Path, case: str, part: int) -> None:
    """Source and derived files, DICOM and NIfTI, all stand at the same place for independent readers."""
    sitk = pytest.importorskip("SimpleITK")
    folder = corpus / "test" / case
    label = None
    if part:  # this series lacks one slice
        stacks = dicom_series.stacks(dicom_files.headers(folder))
        label = stacks[part - 1].label
    volume = read(folder, series=label).slices(0, 12)
    kept = volume.source["dicom"][:12]
    write(volume, tmp_path / "out")
    write(volume, tmp_path / "v.nii.gz")
    raw = read(folder, series=label).slices(0, 12)
    for files in (kept, [str(f) for f in sorted((tmp_path / "out").iterdir())]):
        image = sitk.ReadImage(files)
        for voxel in [(0, 0, 0), (10, 20, 11), (image.GetWidth() - 1, 7, 5)]:
            place = FLIP @ np.array(image.TransformIndexToPhysicalPoint(voxel))
            np.testing.assert_allclose(ras(raw, voxel), place, atol=2e-3)
        theirs = sitk.GetArrayFromImage(image).astype(np.float32)
        assert np.abs(np.maximum(theirs, -1024) - raw.data.numpy()).max() == 0
    subprocess.run(
        [tool("dcm2niix"), "-b", "n", "-z", "n", "-f", "x", "-o", str(tmp_path), str(tmp_path / "out")],
        check=True,
        capture_output=True,
    )
    import nibabel as nib

    theirs = nib.as_closest_canonical(nib.load(next(tmp_path.glob("x*.nii"))))
    mine = nib.as_closest_canonical(nib.load(tmp_path / "v.nii.gz"))
    np.testing.assert_allclose(theirs.affine, mine.affine, atol=2e-3)
    assert np.abs(theirs.get_fdata() - mine.get_fdata()).max() == 0
