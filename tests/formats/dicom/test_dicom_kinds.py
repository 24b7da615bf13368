"""Images of two kinds are no slices of one volume, wherever they lie; what varies along a stack splits nothing."""

import copy
import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dicom_grid as grid
import numpy as np
import pydicom
import pytest
from dicom_grid import Freedoms
from pydicom.dataset import Dataset

from medrecon.formats.dicom.format import Dicom

COUNT = 4
APART: dict[str, tuple[str, Any, Any]] = {
    "EchoTime": ("", 10, 80),
    "EchoNumbers": ("", 1, 2),
    "InversionTime": ("", 700, 2500),
    "RepetitionTime": ("", 500, 3000),
    "FlipAngle": ("", 4, 20),
    "ImageType": ("", ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
    "ComplexImageComponent": ("MRImageFrameTypeSequence", "REAL", "IMAGINARY"),
    "TemporalPositionIdentifier": ("", 1, 2),
    "DiffusionBValue": ("MRDiffusionSequence", 0.0, 1000.0),
    "DiffusionGradientOrientation": ("", [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
    "ContrastBolusAgent": ("", None, "gadolinium"),
    "SequenceName": ("", "*ep_b0", "*ep_b1000#1"),
    "RescaleType": ("", "US", "MS"),
    "FrameType": ("MRImageFrameTypeSequence", ["ORIGINAL", "PRIMARY", "WATER"], ["ORIGINAL", "PRIMARY", "FAT"]),
    "EffectiveEchoTime": ("MREchoSequence", 10.0, 80.0),
    "InversionTimes": ("MRModifierSequence", 700.0, 2500.0),
    "TemporalPositionIndex": ("FrameContentSequence", 1, 2),
    "ContrastBolusAgentAdministered": ("ContrastBolusUsageSequence", "NO", "YES"),
    "KVP": ("CTXRayDetailsSequence", 80, 140),
    "ConvolutionKernel": ("CTReconstructionSequence", "B30s", "B70s"),
    "MonoenergeticEnergyEquivalent": ("MultienergyCTCharacteristicsSequence", 40.0, 190.0),
}
"""What tells kinds apart, its functional group in an enhanced file, and two values."""
CT = ("KVP", "ConvolutionKernel", "MonoenergeticEnergyEquivalent")
CLASSIC = [name for name, (group, *_) in APART.items() if not group]
CLASSIC += ["ComplexImageComponent", "DiffusionBValue", *CT]
ENHANCED = [name for name, (group, *_) in APART.items() if group]
ARRANGED: dict[str, Sequence[int]] = {"interleaved": (0, 1, 0, 1), "halves": (0, 0, 1, 1), "one": (0, 0, 0, 1)}
ALIKE: dict[str, tuple[Any, Any]] = {
    "EchoTime": (2.46, 2.4600001),
    "EffectiveEchoTime": (102.96, 103.008),
    "RepetitionTime": (857.1, 923.4),
    "InversionTime": (280, 300),
    "DiffusionBValue": (1000.0, 1005.0),
    "KVP": ("120", "120.0"),
    "RescaleType": (None, "US"),
    "AcquisitionNumber": (1, 2),
    "AcquisitionTime": ("101500", "101733"),
    "ContentTime": ("101500", "101733"),
    "XRayTubeCurrent": (200, 310),
    "SliceThickness": (2.5, 2.4999),
    "SliceLocation": (10, 20),
    "ImageComments": ("a", "b"),
}
KINDS = {"classic": 3 * len(CLASSIC), "enhanced": 3 * len(ENHANCED), "alike": 2 * len(ALIKE)}


def test_the_count_is_as_told() -> None:
    assert KINDS == {"classic": 48, "enhanced": 30, "alike": 28}


def write(folder: Path, name: str, values: Sequence[Any], enhanced: bool = False) -> Freedoms:
    """A series of `COUNT` slices that have these values of an attribute, in order along the normal."""
    f = Freedoms("CT" if name in CT else "MR", enhanced, count=COUNT)
    folder.mkdir()
    for i, dataset in enumerate(copy.deepcopy(_plain(f))):
        frames = dataset.PerFrameFunctionalGroupsSequence[::-1] if enhanced else [dataset]
        for frame, value in zip(frames, values if enhanced else [values[i]], strict=True):
            if value is not None:
                _set(frame, name, value, enhanced)
        dataset.save_as(folder / f"im{COUNT - i}")
    return f


@functools.cache
def _plain(f: Freedoms) -> list[Dataset]:
    """The files without any such attribute, in order along the normal."""
    with tempfile.TemporaryDirectory() as folder:
        grid.write(f, Path(folder))
        return [pydicom.dcmread(path) for path in sorted(Path(folder).iterdir(), reverse=True)]


def _set(frame: Dataset, name: str, value: Any, enhanced: bool) -> None:
    if enhanced or name == "MonoenergeticEnergyEquivalent":
        item = Dataset()
        setattr(item, name, value)
        setattr(frame, APART[name][0], [item])
    else:
        setattr(frame, name, value)


def parts_are_right(folder: Path, f: Freedoms, name: str, arranged: Sequence[int]) -> None:
    """The list names each kind; each can be read, with its own slices at their places."""
    with pytest.raises(ValueError, match="choose one with series=LABEL") as error:
        Dicom().read_image(folder)
    assert str(folder) in str(error.value)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert len(lines) == 2 and all(name in line for line in lines), lines
    for line, kind in zip(lines, (0, 1), strict=True):
        volume = Dicom().read_image(folder, series=line.split(":")[0])
        mine = np.flatnonzero(np.array(arranged) == kind)
        np.testing.assert_array_equal(volume.data.numpy(), f.expected()[mine].astype(np.float32), err_msg=name)
        first = f.positions()[mine[0]] * [-1, -1, 1]
        np.testing.assert_allclose(volume.affine[:3, 3].numpy(), first, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("enhanced", [False, True])
def test_kinds_never_mix(enhanced: bool, tmp_path: Path) -> None:
    for name, how in itertools.product(ENHANCED if enhanced else CLASSIC, ARRANGED):
        folder = tmp_path / f"{name}{how}"
        f = write(folder, name, [APART[name][1:][i] for i in ARRANGED[how]], enhanced)
        parts_are_right(folder, f, name, ARRANGED[how])


def test_what_varies_along_a_stack_splits_nothing(tmp_path: Path) -> None:
    """Rounding, the heart, and a sweep measured in two acquisitions."""
    for name, how in itertools.product(ALIKE, ("interleaved", "halves")):
        folder = tmp_path / f"{name}{how}"
        f = write(folder, name, [ALIKE[name][i] for i in ARRANGED[how]])
        np.testing.assert_array_equal(Dicom().read_image(folder).data.numpy(), f.expected(), err_msg=name)


def test_a_position_in_time_that_counts_slices_splits_nothing(tmp_path: Path) -> None:
    f = write(tmp_path / "s", "TemporalPositionIdentifier", range(1, COUNT + 1))
    np.testing.assert_array_equal(Dicom().read_image(tmp_path / "s").data.numpy(), f.expected())


@pytest.mark.parametrize("bad", [range(COUNT), [1]])
def test_an_attribute_that_is_no_number_is_a_kind_like_others(bad: Sequence[int], tmp_path: Path) -> None:
    """Anonymised in all slices it tells none apart; damaged in one it does."""
    f = write(tmp_path / "s", "EchoTime", [12.5] * COUNT)
    for i in bad:
        path = tmp_path / "s" / f"im{COUNT - i}"
        data = path.read_bytes()
        at = data.index(b"\x18\0\x81\0DS\4\0") + 8
        path.write_bytes(data[:at] + b"ANON" + data[at + 4 :])
    if len(bad) == COUNT:
        np.testing.assert_array_equal(Dicom().read_image(tmp_path / "s").data.numpy(), f.expected())
    else:
        with pytest.raises(ValueError, match="3 image stacks"):
            Dicom().read_image(tmp_path / "s")


def test_every_slice_of_another_echo_is_no_volume(tmp_path: Path) -> None:
    write(tmp_path / "s", "EchoTime", [10 * (i + 1) for i in range(COUNT)])
    with pytest.raises(ValueError, match="4 image stacks"):
        Dicom().read_image(tmp_path / "s")


def test_two_kinds_at_each_place_and_two_at_regular_places(tmp_path: Path) -> None:
    """Magnitude and phase at every place, and of the magnitude two echoes in turn: three volumes."""
    f = write(tmp_path / "s", "EchoTime", [10 + 70 * (i % 2) for i in range(COUNT)])
    write(tmp_path / "t", "ImageType", [["ORIGINAL", "PRIMARY", "P"]] * COUNT)
    for path in (tmp_path / "t").iterdir():
        path.rename(tmp_path / "s" / f"p{path.name}")
    with pytest.raises(ValueError, match="3 image stacks") as error:
        Dicom().read_image(tmp_path / "s")
    lines = [line for line in str(error.value).splitlines() if "EchoTime 10" in line]
    assert len(lines) == 1 and "AXIAL" in lines[0]
    volume = Dicom().read_image(tmp_path / "s", series=lines[0].split(":")[0].strip())
    np.testing.assert_array_equal(volume.data.numpy(), f.expected()[::2])


def test_a_mosaic_is_no_slice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "s", "ImageType", [["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]] * COUNT)
    with pytest.raises(ValueError, match="mosaic") as error:
        Dicom().read_image(tmp_path / "s")
    assert str(tmp_path / "s") in str(error.value) and "left out" in caplog.text


def test_two_kinds_are_listed_by_info_without_pixels(tmp_path: Path) -> None:
    write(tmp_path / "s", "EchoTime", [10, 80] * 2)
    stacks = Dicom().info(tmp_path / "s")["series"].values()
    assert [(s["slices"], s["tells_apart"], s["problem"]) for s in stacks] == [
        (2, "EchoTime 10.0", ""),
        (2, "EchoTime 80.0", ""),
    ]
