"""NIfTI files whose numbers are no image, or that single precision does not hold, are refused; all others are right."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medrecon import formats

PLACE = np.diag([1.0, 1.0, 2.0, 1.0])


def saved(path: Path, values: np.ndarray, *, intent: int = 0, scaling: tuple[float, float] | None = None) -> Path:
    image = nib.Nifti1Image(values, PLACE, dtype=values.dtype)
    image.header["intent_code"] = intent
    raw = bytearray(image.to_bytes())
    if scaling is not None:
        raw[112:120] = np.array(scaling, "<f4").tobytes()
    path.write_bytes(raw)
    return path


GREY = np.arange(24, dtype=np.float64).reshape(4, 3, 2)


@pytest.mark.parametrize("intent", [0, 1001, 1011, 2001])
def test_intents_of_images(intent: int, tmp_path: Path) -> None:
    got = formats.read(saved(tmp_path / "a.nii", GREY, intent=intent), modality="MR")
    assert np.array_equal(got.data.numpy(), GREY.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("intent", "what"),
    [
        (3, "a statistic"),
        (22, "a statistic"),
        (1002, "labels"),
        (1006, "a displacement field"),
        (1007, "vectors"),
        (2003, "RGB"),
        (2004, "RGBA"),
        (2006, "a displacement field, as of FSL"),
    ],
)
def test_intents_of_other_things(intent: int, what: str, tmp_path: Path) -> None:
    for values in (GREY, np.zeros((4, 3, 2, 3)), np.zeros((4, 3, 2, 1, 3))):
        path = saved(tmp_path / "other.nii", values, intent=intent)
        with pytest.raises(ValueError, match=rf"other\.nii: intent_code is {intent}: {what}.*not an image"):
            formats.read(path, modality="MR")


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_colours(channels: str, tmp_path: Path) -> None:
    kind = np.dtype([(c, "u1") for c in channels])
    path = saved(tmp_path / "c.nii", np.zeros((4, 3, 2), kind))
    with pytest.raises(
        ValueError, match=rf"c\.nii: its voxels are {channels} colours \(datatype \d+\), not grey values"
    ):
        formats.read(path, modality="MR")


@pytest.mark.parametrize("vectors", [(4, 3, 2, 1, 3), (4, 3, 1, 1, 2), (4, 3, 2, 5)])
def test_several_values_a_voxel(vectors: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"v\.nii: expected a 3D image, got size"):
        formats.read(saved(tmp_path / "v.nii", np.zeros(vectors)), modality="MR")


@pytest.mark.parametrize("kind", ["i8", "u8"])
def test_whole_numbers_beyond_2_to_the_53(kind: str, tmp_path: Path) -> None:
    small = GREY.astype(kind) + 2**20
    for scaling in (None, (2.0, -5.0)):
        slope, inter = scaling or (1.0, 0.0)
        got = formats.read(saved(tmp_path / "small.nii", small, scaling=scaling), modality="MR")
        assert np.array_equal(got.data.numpy(), (slope * small + inter).astype(np.float32).transpose(2, 1, 0))
        large = small + (1 << 60)
        with pytest.raises(ValueError, match=r"large\.nii: slice 0: whole numbers up to 11\d+, beyond the 2\^53"):
            formats.read(saved(tmp_path / "large.nii", large, scaling=scaling), modality="MR")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GREY * 1e39, r"slice 0: values up to 2\.\d+e\+40, beyond the 3\.4e\+38 of single precision"),
        (GREY * 1e-42, r"values up to 2\.3e-41, below what single precision holds"),
        (GREY * 1e-320, "below what single precision holds"),
        (GREY + 1e10, "differ by less than single precision tells apart; subtract an offset"),
        (GREY.astype("i4") + 2**30, "differ by less than single precision"),
        ((GREY + 1j * GREY) * 1e39, "beyond the"),
        (np.where(GREY == 3, np.nan, GREY), "NaN or infinite values, first in slice 1"),
        (np.where(GREY == 3, np.inf, GREY), "NaN or infinite values, first in slice 1"),
    ],
)
def test_what_single_precision_does_not_hold(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"x\.nii: .*{message}"):
        formats.read(saved(tmp_path / "x.nii", values), modality="MR")


@pytest.mark.parametrize(
    "values", [GREY * 1e30, GREY * 1e-30, np.where(GREY == 3, 1e-40, GREY), GREY * 0 + 0.1, GREY * 0, GREY + 1e6]
)
def test_what_it_holds(values: np.ndarray, tmp_path: Path) -> None:
    got = formats.read(saved(tmp_path / "x.nii", values), modality="MR").data.numpy()
    np.testing.assert_allclose(got, values.transpose(2, 1, 0), rtol=1e-6, atol=1e-37)


def test_slopes_of_floating_point_numbers(tmp_path: Path) -> None:
    """The standard scales them too, in double precision."""
    stored = np.float32(GREY) + np.float32(0.1)
    got = formats.read(saved(tmp_path / "x.nii", stored, scaling=(0.1, 1000.0)), modality="MR").data.numpy()
    expected = np.float64(np.float32(0.1)) * stored.astype(np.float64) + 1000
    np.testing.assert_array_equal(got, expected.astype(np.float32).transpose(2, 1, 0))
    overflowing = saved(tmp_path / "big.nii", stored * np.float32(1e37), scaling=(1e30, 0.0))
    with pytest.raises(ValueError, match=r"big\.nii: slice 0: values up to 2\.\d+e\+68, beyond"):
        formats.read(overflowing, modality="MR")


def test_complex_values_are_not_ct(tmp_path: Path) -> None:
    path = saved(tmp_path / "z.nii", GREY + 1j)
    assert formats.read(path, modality="MR").data.is_complex()
    with pytest.raises(ValueError, match=r"z\.nii: complex values are not CT; write its magnitude"):
        formats.read(path, modality="CT")
