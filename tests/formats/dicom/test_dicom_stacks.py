"""Which slices are one volume: rounding, repeats in a series, enhanced files of several volumes."""

from collections.abc import Callable
from pathlib import Path

import dicom_grid as grid
import numpy as np
import pydicom
import pytest
from dicom_grid import Freedoms
from dicom_maker import file_at, make_series, values
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medrecon import formats
from medrecon.formats import read


def edit(folder: Path, change: Callable[[Dataset, int], None], count: int) -> None:
    """Change every slice, counted along the normal."""
    for index, path in enumerate([file_at(folder, i) for i in range(count)]):
        dataset = pydicom.dcmread(path)
        change(dataset, index)
        dataset.save_as(path)


def choices(folder: Path) -> list[str]:
    """The lines of the list from which a stack is to be chosen."""
    with pytest.raises(ValueError, match="choose one with series=LABEL") as error:
        read(folder)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


@pytest.mark.parametrize("base", [0.0005, 0.0004, 0.1235, 0.9995])
@pytest.mark.parametrize("enhanced", [False, True])
def test_cosines_that_differ_in_the_last_digit_are_one_grid(base: float, enhanced: bool, tmp_path: Path) -> None:
    """Around values where rounding to three digits falls to both sides."""
    grid.write(f := Freedoms(enhanced=enhanced, count=6), tmp_path / "s")

    def cosines(i: int) -> list[str]:
        a = base + 1e-6 * (-1) ** i
        c = np.sqrt(1 - a * a)
        return [f"{v:.9g}" for v in (c, a, 0, -a, c, 0)]

    for i, path in enumerate(sorted((tmp_path / "s").iterdir())):
        dataset = pydicom.dcmread(path)
        if enhanced:
            for j, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
                frame.PlaneOrientationSequence[0].ImageOrientationPatient = cosines(j)
        else:
            dataset.ImageOrientationPatient = cosines(i)
        dataset.save_as(path)
    np.testing.assert_array_equal(read(tmp_path / "s").data.numpy(), f.expected())


def test_spacings_that_differ_in_the_last_digit_are_one_grid(tmp_path: Path) -> None:
    make_series(tmp_path / "s")
    edit(tmp_path / "s", lambda d, i: setattr(d, "PixelSpacing", ["0.390625" if i % 2 else "0.39063"] * 2), 6)
    assert len(read(tmp_path / "s").data) == 6


def test_another_pixel_size_is_another_grid(tmp_path: Path) -> None:
    """0.8 and 0.81 mm: a tenth of a pixel apart at the tenth."""
    make_series(tmp_path / "s")
    edit(tmp_path / "s", lambda d, i: setattr(d, "PixelSpacing", [0.8, 1.25] if i < 3 else [0.81, 1.25]), 6)
    assert len(choices(tmp_path / "s")) == 2


def test_positions_rounded_by_three_percent_are_regular(tmp_path: Path) -> None:
    heights = [0, 2.0, 4.06, 5.94, 8, 10.06, 12, 13.94, 16, 18]
    make_series(tmp_path / "s", count=10, axes=np.eye(3)[:2])
    edit(tmp_path / "s", lambda d, i: setattr(d, "ImagePositionPatient", [0, 0, heights[i]]), 10)
    volume = read(tmp_path / "s")
    assert volume.spacing[2] == pytest.approx(2)
    np.testing.assert_array_equal(volume.data.numpy(), values(10, (12, 16)))


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
def test_how_regular_does_not_hang_on_the_size(scale: float, tmp_path: Path) -> None:
    """Micrometre voxels: neighbours are no doubles, and a missing slice is missing."""
    make_series(tmp_path / "s", spacing=(scale, scale), step=scale, SliceThickness=scale)
    assert read(tmp_path / "s").spacing == pytest.approx((scale, scale, scale))
    file_at(tmp_path / "s", 3).unlink()
    with pytest.raises(ValueError, match=r"1 slice\(s\) missing"):
        read(tmp_path / "s")


def test_acquisitions_that_overlap_can_be_chosen(tmp_path: Path) -> None:
    same = {"SeriesInstanceUID": generate_uid(), "axes": np.eye(3)[:2], "step": 2.0, "count": 5}
    make_series(tmp_path / "s", prefix="a", AcquisitionNumber=1, **same)  # type: ignore[arg-type]
    make_series(tmp_path / "s", prefix="b", AcquisitionNumber=2, **same)  # type: ignore[arg-type]
    for path in (tmp_path / "s").glob("b*"):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient[2] += 6
        dataset.save_as(path)
    lines = choices(tmp_path / "s")
    assert [line.rsplit(", ", 1)[1] for line in lines] == ["AcquisitionNumber 1", "AcquisitionNumber 2"]
    assert "axial from 5.0 to 13.0 mm" in lines[0] and "axial from 11.0 to 19.0 mm" in lines[1]
    second = read(tmp_path / "s", series=lines[1].split(":")[0])
    assert len(second.data) == 5 and float(second.affine[2, 3]) == pytest.approx(11)


def test_echoes_with_magnitude_and_phase_are_listed_each_by_what_it_is(tmp_path: Path) -> None:
    """No attribute alone tells the four apart; the list does, in `info` too."""
    uid = generate_uid()
    for echo in (1, 2):
        for part in "MP":
            made = {"EchoNumbers": echo, "EchoTime": 5.0 * echo, "ImageType": ["ORIGINAL", "PRIMARY", part]}
            make_series(tmp_path / "s", modality="MR", prefix=f"{echo}{part}", SeriesInstanceUID=uid, **made)
    lines = choices(tmp_path / "s")
    told = [line.split("mm, ")[-1] for line in lines]
    assert set(told) == {
        f"EchoNumbers {e}, EchoTime {5.0 * e}, ImageType ORIGINAL\\PRIMARY\\{p}" for e in (1, 2) for p in "MP"
    }
    files = read(tmp_path / "s", series=lines[0].split(":")[0]).source["dicom"]
    assert len({(h := pydicom.dcmread(f)).EchoTime for f in files}) == 1 and len({h.ImageType[2] for f in files}) == 1
    assert [s["tells_apart"] for s in formats.info(tmp_path / "s")["series"].values()] == told


def test_an_echo_that_lacks_a_slice_is_told_of(tmp_path: Path) -> None:
    uid = generate_uid()
    make_series(tmp_path / "s", modality="MR", prefix="a", EchoTime=5, SeriesInstanceUID=uid)
    make_series(tmp_path / "t", modality="MR", prefix="b", EchoTime=9, SeriesInstanceUID=uid)
    file_at(tmp_path / "t", 2).unlink()
    for path in (tmp_path / "t").iterdir():
        path.rename(tmp_path / "s" / path.name)
    lines = choices(tmp_path / "s")
    assert ["EchoTime 5" in line for line in lines] == [True, False, False]
    assert len(read(tmp_path / "s", series=lines[0].split(":")[0]).data) == 6


def test_a_file_without_a_place_is_the_problem_of_its_series_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dose page with the SOP class of CT in a series of its own; then in the series that is to be read."""
    make_series(tmp_path / "s")
    make_series(tmp_path / "s", prefix="dose", count=1, ImagePositionPatient=None)
    assert len(read(tmp_path / "s").data) == 6 and "no usable geometry" in caplog.text
    uid = pydicom.dcmread(file_at_im(tmp_path / "s")).SeriesInstanceUID
    make_series(tmp_path / "s", prefix="dose", count=1, ImagePositionPatient=None, SeriesInstanceUID=uid)
    with pytest.raises(ValueError, match="dose0: no usable geometry"):
        read(tmp_path / "s")


def file_at_im(folder: Path) -> Path:
    return next(folder.glob("im*"))


REPEATED: dict[str, Callable[[Dataset, int], None]] = {
    "EffectiveEchoTime": lambda d, v: setattr(d, "MREchoSequence", [made(EffectiveEchoTime=5.0 * v)]),
    "TemporalPositionIndex": lambda d, v: setattr(d, "FrameContentSequence", [made(TemporalPositionIndex=v)]),
    "DiffusionBValue": lambda d, v: setattr(d, "MRDiffusionSequence", [made(DiffusionBValue=500.0 * v)]),
    "FrameType": lambda d, v: setattr(
        d, "MRImageFrameTypeSequence", [made(FrameType=["ORIGINAL", "PRIMARY", "MP"[v - 1], "NONE"])]
    ),
    "DimensionIndexValues": lambda d, v: setattr(d, "FrameContentSequence", [made(DimensionIndexValues=[1, v])]),
}


def made(**attributes: object) -> Dataset:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


@pytest.mark.parametrize("name", REPEATED)
def test_volumes_of_an_enhanced_file_are_listed_and_chosen(name: str, tmp_path: Path) -> None:
    """Two volumes at one place: the second holds half the values."""
    f = Freedoms("MR", True, count=3)
    dataset = pydicom.dcmread(next(grid.write(f, tmp_path / "one").iterdir()))
    first, second = ([*pydicom.dcmread(dataset.filename).PerFrameFunctionalGroupsSequence] for _ in range(2))
    for value, frames in ((1, first), (2, second)):
        for frame in frames:
            REPEATED[name](frame, value)
    if name == "DimensionIndexValues":
        dataset.DimensionIndexSequence = [
            made(DimensionIndexPointer=0x00209057),
            made(DimensionIndexPointer=0x00189082),
        ]
    frames = [frame for pair in zip(first, second, strict=True) for frame in pair]
    dataset.PerFrameFunctionalGroupsSequence, dataset.NumberOfFrames = frames, 6
    stored = f.stored()[::-1]
    dataset.PixelData = np.stack([stored, stored // 2], axis=1).astype("<u2").tobytes()
    dataset.save_as(tmp_path / "two")
    lines = choices(tmp_path / "two")
    assert [name in line for line in lines] == [True, True]
    volumes = [read(tmp_path / "two", series=line.split(":")[0]) for line in lines]
    np.testing.assert_array_equal(volumes[0].data.numpy(), f.expected())
    np.testing.assert_array_equal(volumes[1].data.numpy(), f.expected() // 2)
    np.testing.assert_allclose(volumes[1].affine.numpy(), f.affine(), atol=1e-6)


def test_two_stacks_of_an_enhanced_file_are_two_volumes(tmp_path: Path) -> None:
    f = Freedoms("MR", True, count=4)
    path = next(grid.write(f, tmp_path / "s").iterdir())
    dataset = pydicom.dcmread(path)
    for i, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence = [made(StackID=str(1 + i // 2))]
    dataset.save_as(path)
    lines = choices(path)
    assert [len(read(path, series=line.split(":")[0]).data) for line in lines] == [2, 2]


def test_one_frame_is_as_high_as_it_is_thick(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = next(grid.write(Freedoms("MR", True, count=1), tmp_path / "s").iterdir())
    assert read(path).spacing[2] == 1 and "taken as 1 mm high" in caplog.text
    dataset = pydicom.dcmread(path)
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 2
    dataset.save_as(path)
    assert read(path).spacing[2] == 2


def test_groups_for_other_frames_than_there_are_is_refused(tmp_path: Path) -> None:
    path = next(grid.write(Freedoms("MR", True, count=3), tmp_path / "s").iterdir())
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 2
    dataset.save_as(path)
    with pytest.raises(ValueError, match="2 frames, but functional groups for 3") as error:
        read(path)
    assert str(path) in str(error.value)
