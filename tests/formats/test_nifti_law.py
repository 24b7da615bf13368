"""The law of readers, for NIfTI: what nibabel or SimpleITK writes comes back right, over all the standard leaves free.

Values, place and orientation are known; what cannot be right is refused, with the name of the file.
"""

import gzip
import itertools
import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import inv_ornt_aff

from medrecon import formats
from medrecon.formats.nifti import Nifti

read = Nifti().read_image

KINDS = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16")
SCALINGS = (None, (1.0, 0.0), (2.0, -1024.0), (0.25, 3.5), (-3.0, 7.0))
CONTAINERS = (("a.nii", nib.Nifti1Image), ("a.nii.gz", nib.Nifti1Image), ("b.nii", nib.Nifti2Image))
PLACE = np.array([[-0.7, 0.0, 0.0, 10.0], [0.0, 0.9, 0.0, -5.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
ELSEWHERE = np.array([[0.0, 0.9, 0.0, 1.0], [0.7, 0.0, 0.0, -5.0], [0.0, 0.0, 3.0, 70.0], [0.0, 0.0, 0.0, 1.0]])
FIELDS = {"sizeof_hdr": 0, "dim": 40, "datatype": 70, "bitpix": 72, "pixdim": 76, "vox_offset": 108, "scl_slope": 112}
FIELDS |= {"scl_inter": 116, "xyzt_units": 123, "qform_code": 252, "sform_code": 254, "quatern_b": 256, "srow_x": 280}
FIELDS |= {"magic": 344}
"""Where they are in a NIfTI-1 header (nifti1.h)."""


def stored(kind: str) -> np.ndarray:
    """(x, y, z) = (4, 3, 2), other from voxel to voxel, both signs where there are two."""
    values = np.arange(24).reshape(4, 3, 2) * 5 - (40 if kind[0] in "ifc" else 0)
    return (values + 1j * values[::-1] if kind[0] == "c" else values).astype(kind)


def written(image: nib.Nifti1Image, path: Path, scaling: tuple[float, float] | None = None) -> Path:
    """The stored values as they are, and the scaling put into the header behind nibabel's back."""
    image.header.set_data_dtype(image.get_data_dtype())
    raw = bytearray(image.to_bytes())
    if scaling is not None:
        big = image.header.endianness
        at, code = (176, "dd") if isinstance(image, nib.Nifti2Image) else (112, "ff")
        raw[at : at + struct.calcsize("<" + code)] = struct.pack(big + code, *scaling)
    path.write_bytes(gzip.compress(bytes(raw), 1) if path.suffix == ".gz" else bytes(raw))
    return path


def test_values(tmp_path: Path) -> None:
    """12 datatypes, 2 byte orders, 5 scalings, 3 containers: 360 combinations."""
    for kind, order, scaling, (name, container) in itertools.product(KINDS, "<>", SCALINGS, CONTAINERS):
        truth = stored(kind)
        header = container.header_class(endianness=order)
        header.set_data_dtype(truth.dtype)
        path = written(container(truth, PLACE, header), tmp_path / name, scaling)
        slope, inter = scaling or (1.0, 0.0)
        got = read(path, modality="MR" if kind[0] == "c" else "CT")
        expected = (truth.astype(np.complex128 if kind[0] == "c" else np.float64) * slope + inter).transpose(2, 1, 0)
        np.testing.assert_allclose(got.data.numpy(), expected, rtol=1e-6, err_msg=f"{kind} {order} {scaling} {name}")
        np.testing.assert_allclose(got.affine.numpy(), PLACE, atol=1e-6)


def orientations() -> Iterator[np.ndarray]:
    """All 48 orders and directions of the axes."""
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            yield np.array(list(zip(order, flips, strict=True)))


def test_orientation_and_units(tmp_path: Path) -> None:
    """48 orientations, 4 units of length, with an sform, a qform, or both: 576 combinations: the same voxels in mm."""
    truth = stored("i2")
    units = (("mm", 1.0), ("meter", 1e-3), ("micron", 1e3), (0, 1.0))
    codes = ((1, 0), (0, 1), (1, 1))
    turned = [(turn, nib.apply_orientation(truth, turn)) for turn in orientations()]
    for (turn, data), (unit, per_mm), (s, q) in itertools.product(turned, units, codes):
        affine = PLACE @ inv_ornt_aff(turn, truth.shape)
        affine[:3] *= per_mm
        image = nib.Nifti1Image(data, affine)
        image.header.set_xyzt_units(unit)
        image.set_sform(affine if s else None, s)
        image.set_qform(affine, q)
        if not q:
            image.set_qform(None, 0)
        got = read(written(image, tmp_path / "a.nii"), modality="MR")
        for voxel in ((0, 0, 0), (3, 1, 0), (2, 2, 1)):
            mm = PLACE @ [*voxel, 1]
            index = np.rint(np.linalg.solve(got.affine.numpy(), mm)[:3]).astype(int)
            np.testing.assert_allclose(got.affine.numpy() @ [*index, 1], mm, atol=1e-4)
            assert got.data[tuple(index[::-1])] == truth[voxel]


def test_forms_that_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """5 x 5 codes: the place is SimpleITK's, and where two forms disagree that is said."""
    sitk = pytest.importorskip("SimpleITK")
    for s, q in itertools.product(range(5), repeat=2):
        image = nib.Nifti1Image(stored("i2"), PLACE)
        image.set_sform(PLACE, s)
        image.set_qform(ELSEWHERE, q)
        path = written(image, tmp_path / "a.nii")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            got = read(path, modality="MR").affine.numpy()
        assert ("place a voxel" in caplog.text) == (s > 0 and q > 0)
        if s or q:
            other = sitk.ReadImage(str(path))
            for voxel in ((0, 0, 0), (3, 2, 1)):
                lps = np.array(other.TransformIndexToPhysicalPoint(voxel))
                np.testing.assert_allclose(lps * [-1, -1, 1], (got @ [*voxel, 1])[:3], atol=1e-4)
        else:
            assert "left and right are not known" in caplog.text


def test_dimensions(tmp_path: Path) -> None:
    """1 to 7 of them, of length 1 or more: one picture or volume is read, several are refused."""
    for shape in ((4, 3), (4, 3, 2), (4, 3, 1), (4, 3, 2, 1), (4, 3, 2, 1, 1), (1, 3, 2), (4, 1, 1), (1, 1, 1)):
        truth = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        got = read(written(nib.Nifti1Image(truth, PLACE), tmp_path / "a.nii"), modality="MR").data.numpy()
        assert np.array_equal(got, truth.reshape((*shape, 1)[:3]).transpose(2, 1, 0))
    for shape in ((5,), (4, 3, 2, 2), (4, 3, 1, 2), (4, 3, 2, 1, 3)):
        path = written(nib.Nifti1Image(np.zeros(shape, np.int16), PLACE), tmp_path / "several.nii")
        with pytest.raises(ValueError, match=r"several\.nii: expected a 3D image, got size"):
            read(path, modality="MR")


def test_simpleitk_writes(tmp_path: Path) -> None:
    """9 pixel types, 3 directions, compressed or not: 54 combinations."""
    sitk = pytest.importorskip("SimpleITK")
    turned = np.linalg.qr(np.array([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0]
    directions = (np.eye(3), np.eye(3)[[2, 0, 1]] * [[1], [-1], [-1]], turned)
    for kind, direction, name in itertools.product(
        ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"), directions, ("s.nii", "s.nii.gz")
    ):
        truth = stored(kind).transpose(2, 1, 0)
        image = sitk.GetImageFromArray(np.ascontiguousarray(truth))
        image.SetSpacing((0.7, 0.9, 3.0))
        image.SetOrigin((10.0, -20.0, 30.0))
        image.SetDirection(direction.ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / name))
        got = read(tmp_path / name, modality="CT")
        assert np.array_equal(got.data.numpy(), truth.astype(np.float32))
        for voxel in ((0, 0, 0), (3, 2, 1)):
            lps = np.array(image.TransformIndexToPhysicalPoint(voxel))
            np.testing.assert_allclose((got.affine.numpy() @ [*voxel, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


def changed(tmp_path: Path, field: str, code: str, *values: float, at: int = 0, s: int = 1, q: int = 1) -> Path:
    image = nib.Nifti1Image(stored("i2"), PLACE)
    image.set_sform(PLACE, s)
    image.set_qform(PLACE, q)
    raw = bytearray(written(image, tmp_path / "changed.nii").read_bytes())
    start = FIELDS[field] + at * struct.calcsize("<" + code.strip("0123456789")[0])
    raw[start : start + struct.calcsize("<" + code)] = struct.pack("<" + code, *values)
    (tmp_path / "changed.nii").write_bytes(raw)
    return tmp_path / "changed.nii"


NAN, INF = float("nan"), float("inf")
IMPOSSIBLE = (
    ("sizeof_hdr", "i", (347,), {}, "length of a header"),
    ("magic", "4s", (b"ni1",), {}, r"\.hdr of a pair"),
    ("magic", "4s", (b"xyz",), {}, "no NIfTI mark"),
    ("dim", "h", (3,), {"at": 1}, "behind the voxels"),
    ("dim", "h", (5,), {"at": 1}, "cannot hold"),
    ("dim", "hhh", (32767, 32767, 32767), {"at": 1}, "cannot hold"),
    ("dim", "h", (-4,), {"at": 1}, "dim is"),
    ("datatype", "h", (2,), {}, "bitpix is 16"),
    ("datatype", "h", (9999,), {}, "9999|data"),
    ("datatype", "hh", (128, 24), {}, "cannot hold|grey values"),
    ("bitpix", "h", (8,), {}, "bitpix is 8"),
    ("vox_offset", "f", (354.0,), {}, "cannot hold"),
    ("vox_offset", "f", (0.0,), {}, "vox_offset is 0"),
    ("vox_offset", "f", (NAN,), {}, "vox_offset is nan"),
    ("vox_offset", "f", (352.5,), {}, "vox_offset is 352.5"),
    ("scl_slope", "f", (INF,), {}, "scl_slope is inf"),
    ("scl_slope", "ff", (1.0, NAN), {}, "intercept"),
    ("scl_slope", "ff", (NAN, 5.0), {}, "scl_slope is nan"),
    ("scl_slope", "ff", (1e38, 0.0), {}, "slice 0: values up to .*, beyond the 3.4e.38 of single"),
    ("xyzt_units", "B", (5,), {}, "no unit of length"),
    ("sform_code", "h", (77,), {}, "sform_code is 77"),
    ("qform_code", "h", (-1,), {}, "qform_code is -1"),
    ("pixdim", "f", (0.0,), {"at": 2, "s": 0}, "pixdim, the voxel size"),
    ("pixdim", "f", (-2.0,), {"at": 2, "s": 0}, "pixdim, the voxel size"),
    ("pixdim", "f", (NAN,), {"at": 3, "s": 0}, "pixdim, the voxel size"),
    ("pixdim", "f", (0.3,), {"at": 0, "s": 0}, "the handedness, is 0.3"),
    ("pixdim", "f", (1e30,), {"at": 1, "s": 0}, "no scan has these"),
    ("quatern_b", "f", (7.0,), {"s": 0}, "qform: "),
    ("srow_x", "12f", (0.0,) * 12, {"q": 0}, "sform: the affine is singular"),
    ("srow_x", "f", (NAN,), {"q": 0}, "sform: the affine is singular"),
    ("srow_x", "f", (1e30,), {"q": 0}, "sform: the affine has voxels of 1e"),
)


@pytest.mark.parametrize(("field", "code", "values", "more", "message"), IMPOSSIBLE)
def test_the_impossible_is_refused(
    field: str, code: str, values: tuple[float, ...], more: dict[str, int], message: str, tmp_path: Path
) -> None:
    """nibabel mends some of these by itself, and reads other values or another place then."""
    with pytest.raises(ValueError, match=message) as error:
        formats.read(changed(tmp_path, field, code, *values, **more), modality="MR")
    assert "changed.nii" in str(error.value)


def test_another_voxel_size_beside_the_sform_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(changed(tmp_path, "pixdim", "f", 1.5, at=1, q=0), modality="MR")
    assert "changed.nii: voxels of [0.7 0.9 3. ] mm by its sform, of [1.5 0.9 3. ] mm by its pixdim" in caplog.text


@pytest.mark.parametrize("row", [0.0, NAN])
def test_a_bad_sform_beside_a_good_qform(row: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = changed(tmp_path, "srow_x", "12f", *(row,) * 12)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(read(path, modality="MR").affine.numpy(), PLACE, atol=1e-6)
    assert "changed.nii: sform: the affine is singular" in caplog.text and "the qform is taken" in caplog.text


def test_voxels_of_nanometres(tmp_path: Path) -> None:
    for size in (5e-2, 5e-5, 2e-5, 2e-6):
        path = written(nib.Nifti1Image(stored("i2"), np.diag([size, size, size, 1])), tmp_path / "a.nii")
        assert read(path, modality="MR").spacing == pytest.approx((size,) * 3)


def test_every_flipped_bit_of_a_compressed_file_is_noticed(tmp_path: Path) -> None:
    """gzip has a checksum of what it holds, at its end, which has to be reached."""
    truth = np.random.default_rng(0).integers(-999, 999, (16, 16, 4)).astype(np.int16)
    whole = written(nib.Nifti1Image(truth, PLACE), tmp_path / "a.nii.gz").read_bytes()
    for bit in range(10 * 8, len(whole) * 8, 37):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad.nii.gz").write_bytes(raw)
        with pytest.raises(ValueError, match=r"bad\.nii\.gz: damaged"):
            read(tmp_path / "bad.nii.gz", modality="MR")
