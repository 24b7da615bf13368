"""NIfTI: values, units, place and codes, in and out."""

import json
import logging
import random
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medrecon import RESEARCH_USE_ONLY
from medrecon.core.volume import Volume
from medrecon.formats import nifti, read, write


def volume(affine: np.ndarray, modality: str = "CT") -> Volume:
    data = torch.arange(3 * 4 * 5, dtype=torch.float32).reshape(3, 4, 5) * 1.5 - 20
    return Volume(data, torch.from_numpy(affine), "HU" if modality == "CT" else "a.u.", modality)  # type: ignore[arg-type]


def oblique(seed: int, left_handed: bool, shear: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    q[:, 0] *= np.sign(np.linalg.det(q)) * (-1 if left_handed else 1)
    affine = np.eye(4)
    affine[:3, :3] = q * rng.uniform(0.4, 5, 3)
    affine[:3, 2] += shear * affine[:3, 1]
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), left_handed=st.booleans(), modality=st.sampled_from(["CT", "MR"]))
@example(seed=3661, left_handed=False, modality="CT")  # near half a turn: the quaternion is off by 0.0023 mm a voxel
@example(seed=4, left_handed=True, modality="CT")  # off by 3e-5 mm
def test_round_trip_of_any_grid(tmp_path: Path, seed: int, left_handed: bool, modality: str) -> None:
    made = volume(oblique(seed, left_handed), modality)
    write(made, tmp_path / "v.nii", overwrite=True)
    again = read(tmp_path / "v.nii")
    assert torch.equal(again.data, made.data)
    assert (again.units, again.modality) == (made.units, made.modality)
    torch.testing.assert_close(again.affine, made.affine, atol=2e-5, rtol=1e-6)  # a NIfTI header is float32
    header = nib.load(tmp_path / "v.nii").header
    assert header["sform_code"] == 1 and header["qform_code"] in (0, 1)
    if header["qform_code"]:
        corner = np.array([4, 3, 2, 1])
        np.testing.assert_allclose(header.get_qform() @ corner, made.affine.numpy() @ corner, atol=4e-5)
    assert header.get_xyzt_units()[0] == "mm" and header.get_data_dtype() == np.float32


def test_voxel_order_is_column_row_slice(tmp_path: Path) -> None:
    made = volume(np.diag([2.0, 3.0, 4.0, 1.0]))
    write(made, tmp_path / "v.nii.gz")
    image = nib.load(tmp_path / "v.nii.gz")
    assert image.shape == (5, 4, 3)
    assert image.get_fdata()[4, 1, 2] == made.data[2, 1, 4]
    assert image.header.get_zooms() == (2, 3, 4)


def test_a_qform_is_written_where_it_is_exact(tmp_path: Path) -> None:
    """To 1e-5 mm over the whole grid: a turn that floats hold exactly has one, near half a turn there is none."""
    for seed, shape, code in ((0, (3, 4, 5), 1), (3661, (3, 4, 5), 0)):
        affine = np.diag([-0.7, -0.7, 3.0, 1.0]) if seed == 0 else oblique(seed, False)
        made = Volume(torch.zeros(shape), torch.from_numpy(affine), "HU", "CT")
        write(made, tmp_path / f"{seed}.nii")
        assert nib.load(tmp_path / f"{seed}.nii").header["qform_code"] == code
    tilted = oblique(1, False)
    made = Volume(torch.zeros(100, 2, 512), torch.from_numpy(tilted), "HU", "CT")
    write(made, tmp_path / "wide.nii")
    header = nib.load(tmp_path / "wide.nii").header
    corner = np.array([511, 1, 99, 1])
    if header["qform_code"]:
        assert np.abs((header.get_qform() - header.get_sform()) @ corner).max() < 1e-5
    assert header["pixdim"][1:4] == pytest.approx(made.spacing, rel=1e-6)


def test_shear_is_in_the_sform_and_the_qform_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = volume(oblique(3, False, shear=0.3))
    with caplog.at_level(logging.WARNING):
        write(made, tmp_path / "v.nii.gz")
    assert "v.nii.gz: the grid is sheared" in caplog.text and "SimpleITK" in caplog.text
    header = nib.load(tmp_path / "v.nii.gz").header
    assert header["sform_code"] == 1 and header["qform_code"] == 0
    torch.testing.assert_close(read(tmp_path / "v.nii.gz").affine, made.affine, atol=2e-5, rtol=1e-6)
    assert header.get_zooms() == pytest.approx(made.spacing, rel=1e-5)


def test_simpleitk_sees_the_same_place(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    made = volume(oblique(11, True))
    write(made, tmp_path / "v.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    lps = np.array(image.TransformIndexToPhysicalPoint((4, 2, 1)))
    expected = (made.affine @ torch.tensor([4.0, 2, 1, 1], dtype=torch.float64))[:3].numpy()
    np.testing.assert_allclose(lps * [-1, -1, 1], expected, atol=1e-4)
    assert image.GetPixel(4, 2, 1) == made.data[1, 2, 4]


def test_sidecar_carries_units_and_the_research_text(tmp_path: Path) -> None:
    write(volume(np.eye(4)), tmp_path / "v.nii.gz", description="TV")
    said = json.loads((tmp_path / "v.json").read_text())
    assert said["units"] == "HU" and said["use"] == RESEARCH_USE_ONLY and said["description"] == "TV"
    assert RESEARCH_USE_ONLY.encode() in bytes(nib.load(tmp_path / "v.nii.gz").header["descrip"])


def test_units_of_foreign_files_are_never_guessed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), -1000.0), np.eye(4)), tmp_path / "v.nii")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path / "v.nii").units == "a.u."
    assert "taken as MR" in caplog.text
    assert read(tmp_path / "v.nii", modality="CT").units == "HU"
    (tmp_path / "v.json").write_text('{"Modality": "CT"}')  # somebody else's sidecar says nothing of units
    assert read(tmp_path / "v.nii").units == "a.u."
    (tmp_path / "v.json").write_text("{")
    with pytest.raises(ValueError, match=r"v\.json: not readable as JSON"):
        read(tmp_path / "v.nii")


def test_what_contradicts_the_sidecar_is_refused(tmp_path: Path) -> None:
    """CT in HU asked for as MR gave figures of MR; 1/mm said to be 1/cm gave a tenth."""
    write(volume(np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(ValueError, match=r"v\.json beside it.* says CT in HU, and MR was asked for"):
        read(tmp_path / "v.nii", modality="MR")
    attenuation = Volume(torch.full((2, 4, 4), 0.02), torch.eye(4, dtype=torch.float64), "1/mm", "CT")
    write(attenuation, tmp_path / "mu.nii")
    assert read(tmp_path / "mu.nii", modality="CT", units="1/mm").units == "1/mm"
    for units in ("1/cm", "HU"):
        with pytest.raises(ValueError, match=rf"mu\.nii: the JSON beside it .* 1/mm, not {units}"):
            read(tmp_path / "mu.nii", modality="CT", units=units)
    (tmp_path / "v.json").unlink()
    assert read(tmp_path / "v.nii", modality="MR").units == "a.u."


def test_scaling_units_and_two_dimensions(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(12, dtype=np.int16).reshape(3, 4), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(2.0, -5.0)
    nib.save(image, tmp_path / "v.nii")
    got = read(tmp_path / "v.nii")
    assert got.data.shape == (1, 4, 3) and got.spacing == pytest.approx((1, 1, 2))
    stored = np.asarray(nib.load(tmp_path / "v.nii").dataobj)
    np.testing.assert_allclose(got.data[0].numpy(), stored.T)
    assert stored[0, 1] - stored[0, 0] == pytest.approx(2.0)  # the scaling was applied
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 1)), np.eye(4)), tmp_path / "w.nii")
    assert read(tmp_path / "w.nii").data.shape == (5, 4, 3)


def test_bad_files_are_named(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 3)), np.eye(4)), tmp_path / "t.nii")
    with pytest.raises(ValueError, match=r"t\.nii: expected a 3D image, got size \(2, 2, 2, 3\)"):
        read(tmp_path / "t.nii")
    data = np.zeros((2, 2, 3))
    data[0, 0, 1] = np.nan
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "n.nii")
    with pytest.raises(ValueError, match="NaN or infinite values, first in slice 1"):
        read(tmp_path / "n.nii")
    write(volume(np.eye(4)), tmp_path / "v.nii")
    (tmp_path / "cut.nii").write_bytes((tmp_path / "v.nii").read_bytes()[:-30])
    (tmp_path / "text.nii").write_text("text")
    for name in ("cut.nii", "text.nii"):
        with pytest.raises(ValueError, match="damaged or not NIfTI") as error:
            read(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(ValueError, match="series='x' is for DICOM"):
        read(tmp_path / "v.nii", series="x")


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="magnitude"):
        write(volume(np.eye(4), "MR").map(lambda d: d + 1j), tmp_path / "v.nii")
    assert not list(tmp_path.iterdir())


def test_existing_output_is_refused_even_if_only_the_sidecar(tmp_path: Path) -> None:
    write(volume(np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(volume(np.eye(4)), tmp_path / "v.nii")
    (tmp_path / "v.nii").unlink()
    with pytest.raises(FileExistsError, match=r"v\.json"):
        write(volume(np.eye(4)), tmp_path / "v.nii")
    assert nifti.sidecar(tmp_path / "a.b.NII.GZ").name == "a.b.json"


def test_warns_where_there_is_no_orientation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(np.zeros((3, 3, 3)), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "v.nii")
    with caplog.at_level(logging.WARNING):
        read(tmp_path / "v.nii")
    assert "left and right are not known" in caplog.text


def written(folder: Path, modality: str = "CT") -> Path:
    """A gradient of 0..999 HU."""
    data = torch.linspace(0, 999 if modality == "CT" else 500, 4 * 20 * 20).reshape(4, 20, 20).round()
    units = "HU" if modality == "CT" else "a.u."
    made = Volume(data, torch.eye(4, dtype=torch.float64), units, modality)  # type: ignore[arg-type]
    return write(made, folder / "x.nii.gz", overwrite=True)


def test_a_flipped_bit_in_a_compressed_file_is_refused(tmp_path: Path) -> None:
    """A bit in the deflate stream may give voxels of 1e27; the checksum behind it tells."""
    path = written(tmp_path)
    (tmp_path / "x.json").unlink()  # of another program: nothing but the checksum of gzip protects it
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(20, len(whole))] ^= 1 << draw.randrange(8)  # behind the name and time in the header
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.nii\.gz: damaged"):
            read(path, modality="CT")


def test_an_image_and_a_sidecar_of_two_writings_are_refused(tmp_path: Path) -> None:
    """What a kill between two renames leaves: a CT would be read as MR, or the other way round."""
    ct, mr = written(tmp_path / "ct"), written(tmp_path / "mr", "MR")
    for image, note in ((ct, mr), (mr, ct)):
        folder = tmp_path / f"{image.parent.name}_of_{note.parent.name}"
        folder.mkdir()
        half = shutil.copy(image, folder / "x.nii.gz")
        shutil.copy(note.with_name("x.json"), folder / "x.json")
        for modality in (None, "CT", "MR"):
            with pytest.raises(ValueError, match=r"x\.nii\.gz: is not the image that x\.json"):
                read(half, modality=modality)
        (folder / "x.json").unlink()
        assert read(half, modality="CT").units == "HU"


def test_an_older_sidecar_without_a_digest_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    said = json.loads((tmp_path / "x.json").read_text())
    assert len(said.pop("image_sha256")) == 64
    (tmp_path / "x.json").write_text(json.dumps(said))
    assert read(path).modality == "CT"


def test_the_json_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    """dcm2niix and BIDS name theirs alike."""
    (tmp_path / "x.json").write_text('{"EchoTime": 0.03}')
    with pytest.raises(FileExistsError, match=r"x\.json: medrecon did not write it"):
        written(tmp_path)
    assert (tmp_path / "x.json").read_text() == '{"EchoTime": 0.03}' and not (tmp_path / "x.nii.gz").exists()
