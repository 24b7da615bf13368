"""What stored pixels mean: padding, rescale and photometric interpretation, one kind of trap a test."""

from dataclasses import replace
from pathlib import Path

import dicom_grid as grid
import numpy as np
import pydicom
import pytest
import torch
from dicom_grid import Freedoms
from dicom_maker import file_at, make_series, values

from medrecon import formats
from medrecon.formats import read


def change(path: Path, **attributes: object) -> None:
    """Set attributes of a file; None takes one away."""
    dataset = pydicom.dcmread(path)
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)


@pytest.mark.parametrize("value", [63536, 65535, 32767, 4095])
@pytest.mark.parametrize("enhanced", [False, True])
def test_padding_above_tissue_is_air_and_counted(
    value: int, enhanced: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding values that real scanners write; the count reaches the log, the volume and what a simulation records."""
    monkeypatch.setattr(Freedoms, "padded", lambda self: (value, None))
    f = Freedoms(enhanced=enhanced, signed=value == 32767, padding="high")
    volume = read(grid.write(f, tmp_path / "s"))
    count = int(f.outside().sum())
    assert (volume.data.numpy()[f.outside()] == -1024).all()
    assert volume.data[:, 16, 18].tolist() == f.expected()[:, 16, 18].tolist()
    assert f"{count} voxels are padding ({value})" in caplog.text and volume.source["padded_voxels"] == count
    told = formats.info(tmp_path / "s")["series"].values()
    assert [stack["padding"] for stack in told] == [str(value)]


def test_padding_that_is_air_anyhow_is_not_worth_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = read(grid.write(Freedoms(signed=True, padding="low"), tmp_path / "s"))
    assert volume.source["padded_voxels"] > 0 and not caplog.records


def test_padding_inside_of_the_image_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A header that calls a value of tissue padding: read as the standard says, and not in silence."""
    make_series(tmp_path / "s", count=1)
    data = values(1, (12, 16))[0] + 1024
    dataset = pydicom.dcmread(path := next((tmp_path / "s").iterdir()))
    dataset.add_new("PixelPaddingValue", "US", int(data[5, 7]))
    dataset.save_as(path)
    read(tmp_path / "s")
    assert "1 voxels inside the image have the value of its padding" in caplog.text


def test_a_padding_limit_alone_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "s", PixelPaddingRangeLimit=5)
    with pytest.raises(ValueError, match="PixelPaddingRangeLimit without PixelPaddingValue") as error:
        read(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_monochrome1_is_about_display_only(modality: str, enhanced: bool, tmp_path: Path) -> None:
    f = Freedoms(modality, enhanced)
    one = read(grid.write(f, tmp_path / "2"))
    other = read(grid.write(replace(f, photometric="MONOCHROME1"), tmp_path / "1"))
    np.testing.assert_array_equal(one.data.numpy(), other.data.numpy())


@pytest.mark.parametrize(("shown", "samples"), [("RGB", 3), ("YBR_FULL", 3), ("PALETTE COLOR", 1)])
def test_colour_is_left_out_by_name_and_the_rest_is_read(
    shown: str, samples: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A screenshot with the SOP class of CT, in the series it shows."""
    make_series(tmp_path / "s")
    expected = read(tmp_path / "s").data
    dataset = pydicom.dcmread(file_at(tmp_path / "s", 5))
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = shown, samples, 0
    dataset.PixelData = bytes(12 * 16 * 2 * samples)
    dataset.save_as(tmp_path / "s" / "shot")
    np.testing.assert_array_equal(read(tmp_path / "s").data.numpy(), expected.numpy())
    assert f"{tmp_path / 's' / 'shot'}: left out, a colour image ({shown})" in caplog.text
    with pytest.raises(ValueError, match="no CT or MR image here") as error:
        read(tmp_path / "s" / "shot")
    assert f"colour image ({shown}), such as {tmp_path / 's' / 'shot'}" in str(error.value)


GONE = {"RescaleSlope": None, "RescaleIntercept": None}
EMPTY = {"RescaleSlope": "", "RescaleIntercept": ""}


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize(
    "change_of",
    [GONE, EMPTY, {"RescaleSlope": 0}, {"RescaleIntercept": None}, {"RescaleSlope": ""}],
    ids=["missing", "empty", "slope 0", "no intercept", "slope empty"],
)
def test_a_slice_without_a_rescale_is_refused_by_name(
    modality: str, change_of: dict[str, object], tmp_path: Path
) -> None:
    """Among neighbours that have one: it would be read at other values than they."""
    make_series(tmp_path / "s", modality=modality, RescaleSlope=0.5, RescaleIntercept=-1024)
    bad = file_at(tmp_path / "s", 2)
    change(bad, **change_of)
    with pytest.raises(ValueError, match="Rescale") as error:
        read(tmp_path / "s")
    assert f"{bad}: " in str(error.value)


@pytest.mark.parametrize("change_of", [GONE, EMPTY, {"RescaleSlope": 0}], ids=["missing", "empty", "slope 0"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_ct_without_any_rescale_is_refused(change_of: dict[str, object], enhanced: bool, tmp_path: Path) -> None:
    grid.write(Freedoms(enhanced=enhanced), tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        if enhanced:
            dataset = pydicom.dcmread(path)
            for frame in dataset.PerFrameFunctionalGroupsSequence:
                for name, value in change_of.items():
                    if value is None:
                        delattr(frame.PixelValueTransformationSequence[0], name)
                    else:
                        setattr(frame.PixelValueTransformationSequence[0], name, value)
            dataset.save_as(path)
        else:
            change(path, **change_of)
    with pytest.raises(ValueError, match="Rescale") as error:
        read(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)


@pytest.mark.parametrize("attributes", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_mr_without_a_rescale_is_as_stored(attributes: dict[str, object], tmp_path: Path) -> None:
    """Also where some slices say slope 1 and intercept 0, which changes nothing."""
    make_series(tmp_path / "s", modality="MR")
    for index in (1, 4):
        change(file_at(tmp_path / "s", index), **attributes)
    np.testing.assert_array_equal(read(tmp_path / "s").data.numpy(), values(6, (12, 16)))


@pytest.mark.parametrize("unit", ["MGML", "Z_EFF", "PCT", "ED"])
def test_other_quantities_than_hu_are_refused(unit: str, tmp_path: Path) -> None:
    """Maps of iodine, effective atomic number and electron density have the SOP class of CT, too."""
    make_series(tmp_path / "s", RescaleType=unit)
    with pytest.raises(ValueError, match=f"the values are {unit}"):
        read(tmp_path / "s")


def test_more_pixels_than_the_image_has_are_refused(tmp_path: Path) -> None:
    """Rows damaged to half of them: the image would be cut."""
    make_series(tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        change(path, Rows=6)
    with pytest.raises(ValueError, match="384 bytes of pixels, and 192 expected"):
        read(tmp_path / "s")


def test_bytes_of_pixels_too_many_are_refused_unless_they_are_zero(tmp_path: Path) -> None:
    """A damaged length that takes in what lies before the pixels: three of their bytes are left over."""
    path = next(grid.write(Freedoms("MR", count=1), tmp_path / "s").iterdir())
    change(path, PixelData=pydicom.dcmread(path).PixelData + b"\0\0")
    with pytest.warns(UserWarning, match="excess padding"):
        assert len(read(path).data) == 1
    change(path, PixelData=b"\7\7" + pydicom.dcmread(path).PixelData[:-2])
    with pytest.raises(ValueError, match="2306 bytes of pixels, and 2304 expected: they may be shifted") as error:
        read(path)
    assert str(path) in str(error.value)


def test_shifted_pixels_are_refused(tmp_path: Path) -> None:
    """Four bytes too many before them: their last ones are left over at the end of the file."""
    make_series(tmp_path / "s")
    bad = file_at(tmp_path / "s", 5)
    data = bad.read_bytes()
    at = data.index(b"\xe0\x7f\x10\0OW") + 12
    bad.write_bytes(data[:at] + b"\1\2\3\4" + data[at:])
    with pytest.raises(ValueError, match="bytes left over after the pixels") as error:
        read(tmp_path / "s")
    assert str(bad) in str(error.value)


@pytest.mark.parametrize("name", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_slices_of_two_patients_studies_or_places_are_no_volume(name: str, tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    change(file_at(tmp_path / "s", 3), **{name: "1.2.3"})
    with pytest.raises(ValueError, match=f"differ in {name}"):
        read(tmp_path / "s")


def test_a_frame_of_reference_made_up_for_every_image_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in LIDC-IDRI; where two images share one the others are elsewhere."""
    files = make_series(tmp_path / "s")
    whole = read(tmp_path / "s")
    for index in range(len(files)):
        change(file_at(tmp_path / "s", index), FrameOfReferenceUID=f"1.2.{index + 1}")
    caplog.clear()
    assert torch.equal(read(tmp_path / "s").data, whole.data)
    assert "every image of this series has a FrameOfReferenceUID of its own" in caplog.text
    change(file_at(tmp_path / "s", 0), FrameOfReferenceUID="1.2.2")
    with pytest.raises(ValueError, match="differ in FrameOfReferenceUID"):
        read(tmp_path / "s")


def test_slices_far_beside_their_normal_are_no_tilted_gantry(tmp_path: Path) -> None:
    make_series(tmp_path / "s", step=np.array([50.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="degrees beside their normal"):
        read(tmp_path / "s")


def test_ct_in_units_of_its_own_is_refused_and_in_none_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_series(tmp_path / "s", RescaleType="1/CM")
    with pytest.raises(ValueError, match="the values are 1/CM"):
        read(tmp_path / "s")
    make_series(tmp_path / "u", RescaleType="US")
    read(tmp_path / "u")
    assert "taken as HU" in caplog.text


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_lookup_table_beside_a_slope_is_refused(modality: str, enhanced: bool, tmp_path: Path) -> None:
    """The standard allows one of them; which is right nobody knows."""
    f = Freedoms(modality, enhanced, bits=(16, 12, 11), slopes="both")
    grid.write(f, tmp_path / "s")
    with pytest.raises(ValueError, match="Modality LUT Sequence, and RescaleSlope") as error:
        read(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value)


def test_a_lookup_table_does_not_wrap_around(tmp_path: Path) -> None:
    """Stored 32000 above a first entry of -1024 is entry 33024, which 16 signed bits do not hold."""
    path = next(grid.write(Freedoms("MR", signed=True, slopes="none", count=1), tmp_path / "s").iterdir())
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS", [40000, -1024, 16])
    item.ModalityLUTType = "US"
    item.add_new("LUTData", "OW", (np.arange(40000) + 7).astype("<u2").tobytes())
    stored = np.linspace(-2000, 32000, 32 * 36).astype("<i2")
    change(path, ModalityLUTSequence=[item], PixelData=stored.tobytes())
    expected = np.maximum(stored.astype(int) + 1024, 0) + 7
    np.testing.assert_array_equal(read(path).data.numpy().ravel(), expected)


def test_mr_with_lookup_tables_in_some_slices_only_is_refused(tmp_path: Path) -> None:
    f = Freedoms("MR", bits=(16, 12, 11), slopes="table", count=3)
    bad = sorted(grid.write(f, tmp_path / "s").iterdir())[1]
    change(bad, ModalityLUTSequence=None)
    with pytest.raises(ValueError, match="no RescaleSlope and RescaleIntercept") as error:
        read(tmp_path / "s")
    assert str(bad) in str(error.value)


@pytest.mark.parametrize("enhanced", [False, True])
def test_real_world_values_alone_are_not_applied_and_told(
    enhanced: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    f = Freedoms("MR", enhanced, slopes="mapping")
    np.testing.assert_array_equal(read(grid.write(f, tmp_path / "s")).data.numpy(), f.stored())
    assert "RealWorldValueMappingSequence tells values in mm2/s; it is not applied" in caplog.text


@pytest.mark.parametrize("enhanced", [False, True])
def test_slices_that_only_their_real_world_values_make_comparable_are_refused(enhanced: bool, tmp_path: Path) -> None:
    path = sorted(grid.write(Freedoms("MR", enhanced, slopes="mapping", count=3), tmp_path / "s").iterdir())[0]
    dataset = pydicom.dcmread(path)
    frame = dataset.PerFrameFunctionalGroupsSequence[1] if enhanced else dataset
    frame.RealWorldValueMappingSequence[0].RealWorldValueSlope = 2.5
    dataset.save_as(path)
    with pytest.raises(ValueError, match="another RealWorldValueMappingSequence than") as error:
        read(tmp_path / "s")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_ct_with_two_kinds_of_hu_is_refused(slope: float, tmp_path: Path) -> None:
    f = Freedoms()
    folder = grid.write(f, tmp_path / "s")
    for path in folder.iterdir():
        change(path, RealWorldValueMappingSequence=[grid.mapping("[hnsf'U]", slope, -1024.0)])
    if slope == 1.0:
        np.testing.assert_array_equal(read(folder).data.numpy(), f.expected())
    else:
        with pytest.raises(ValueError, match=r"of HU are .* by RealWorldValueMappingSequence") as error:
            read(folder)
        assert str(folder) in str(error.value)


@pytest.mark.parametrize(("name", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8"), ("", "")])
def test_pixels_of_another_kind_or_none_are_refused_by_name(name: str, kind: str, tmp_path: Path) -> None:
    bad = sorted(grid.write(Freedoms("MR"), tmp_path / "s").iterdir())[1]
    change(bad, PixelData=None)
    if name:
        change(bad, BitsAllocated=8 * int(kind[2]), **{name: np.ones((32, 36), kind).tobytes()})
    with pytest.raises(ValueError, match=f"holds {name}, which no CT or MR" if name else "holds no pixels") as error:
        read(tmp_path / "s")
    assert (f"{bad}: " in str(error.value) and "NIfTI" in str(error.value)) or not name


@pytest.mark.parametrize("intercept", [-1024, 0])
def test_a_lost_intercept_is_said(intercept: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Water of 1064 HU in air of 24: an export that wrote 0 for -1024."""
    make_series(tmp_path / "s", count=3, RescaleIntercept=intercept)
    for path in (tmp_path / "s").iterdir():
        stored = np.full((12, 16), 24, "<u2")
        stored[3:9, 4:12] = 1064
        change(path, PixelData=stored.tobytes())
    read(tmp_path / "s")
    assert ("Check RescaleIntercept" in caplog.text) == (intercept == 0)
