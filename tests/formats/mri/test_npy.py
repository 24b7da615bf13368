"""k-space in .npy files, the corpus's among them; bad files."""

from dataclasses import replace
from pathlib import Path

import fastmri_maker as maker
import numpy as np
import pytest
import torch

from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.cli import main
from medrecon.core.noise import MRINoise
from medrecon.formats.measurement_file import load_scan
from medrecon.formats.raw_data import read_raw, recognise
from medrecon.geometry import Trajectory
from medrecon.kspace.calibration import calibration_width
from medrecon.pipeline import reconstruct

pytestmark = pytest.mark.usefixtures("one_thread")


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_slices_and_pixel(tmp_path: Path) -> None:
    stack = maker.kspace(3, 2, (20, 15))
    file = saved(tmp_path / "k.npy", stack.astype(np.complex128))
    assert recognise(file).name == "npy_kspace"
    scan = read_raw(file, RawOptions(slices=(1, 3), pixel=0.8))
    assert np.array_equal(scan.data.numpy(), stack[1:]) and scan.provenance["pixel_from"] == "given"
    assert scan.affine.diagonal().tolist() == [-0.8, -0.8, 0.8, 1]
    one = read_raw(saved(tmp_path / "one.npy", np.asfortranarray(stack[0])))
    assert np.array_equal(one.data.numpy(), stack[:1])
    assert one.provenance["pixel_from"] == "not in the file: taken as 1 mm"


def test_slices_may_have_their_own_samples(tmp_path: Path) -> None:
    stack = maker.kspace(2, 2, (20, 15))
    stack[0, ..., ::2] = stack[1, ..., 1::2] = 0
    scan = read_raw(saved(tmp_path / "k.npy", stack))
    assert scan.mask is not None and scan.mask.shape == (2, 20, 15)
    assert scan.provenance["acceleration"] == pytest.approx(2)


def test_the_brain_of_the_corpus(corpus: Path) -> None:
    """8 coils, 230 x 180, 12.4 % acquired; the coordinates beside it belong to other samples and are refused."""
    folder = corpus / "raw" / "raw_mri_brain8ch"
    scan = read_raw(folder / "cartesian_ksp.npy")
    assert scan.data.shape == (1, 8, 230, 180) and scan.mask is not None
    assert float(scan.mask.double().mean()) == pytest.approx(0.12434783)
    assert calibration_width(scan.mask) >= 24
    with pytest.raises(ValueError, match=r"projection_coord.npy: expected complex k-space, got float64 .*trajectory\?"):
        read_raw(folder / "projection_coord.npy")


def test_bad_files(tmp_path: Path) -> None:
    stack = maker.kspace(2, 4, (140, 130))
    with pytest.raises(ValueError, match=r"k.npy: k-space: 140 coils of 130 x 4 samples; the coils are on the last"):
        read_raw(saved(tmp_path / "k.npy", np.moveaxis(stack[0], 0, -1)))
    with pytest.raises(ValueError, match=r"numpy.moveaxis brings it there"):
        read_raw(saved(tmp_path / "k.npy", np.moveaxis(stack, 1, -1)))
    with pytest.raises(ValueError, match=r"expected \(coils, H, W\) or .*, got shape \(140, 130\)"):
        read_raw(saved(tmp_path / "k.npy", stack[0, 0]))
    bad = stack.copy()
    bad[1, 2, 3, 4] = np.inf
    with pytest.raises(ValueError, match=r"k.npy: k-space: 1 NaN or infinite samples in slice 1"):
        read_raw(saved(tmp_path / "k.npy", bad))
    assert torch.equal(read_raw(tmp_path / "k.npy", RawOptions(slices=(0, 1))).data, torch.from_numpy(stack[:1]))
    with pytest.raises(ValueError, match="slice 0 is 0 everywhere"):
        read_raw(saved(tmp_path / "k.npy", 0 * stack))
    file = saved(tmp_path / "k.npy", stack)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"k.npy: not a .npy array of numbers, truncated or damaged"):
        read_raw(file)
    np.save(tmp_path / "o.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o.npy: not a .npy array of numbers"):
        read_raw(tmp_path / "o.npy")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(2, 8, 6)", b"(2, 8, 5)"),  # shorter than the file
        (b"(2, 8, 6)", b"(-2, 8, 6)"),
        (b"(2, 8, 6)", b"(2, 8, 6000000000000)"),
        (b"<c8", b"<c9"),
        (b"<c8", b"|O8"),
        (b"{", b"["),
    ],
)
def test_headers_that_do_not_fit_the_file(old: bytes, new: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path / "k.npy", np.ones((2, 8, 6), np.complex64))
    raw = path.read_bytes()
    end = raw.index(b"\n")
    head = raw[:end].replace(old, new).rstrip().ljust(end)  # of the same length: padded with blanks
    path.write_bytes(head + raw[end:])
    with pytest.raises(ValueError, match=r"k\.npy: not a \.npy array of numbers"):
        read_raw(path)


def test_bytes_behind_the_samples(tmp_path: Path) -> None:
    path = saved(tmp_path / "k.npy", np.ones((2, 8, 6), np.complex64))
    path.write_bytes(path.read_bytes() + bytes(16))
    with pytest.raises(ValueError, match=r"k\.npy: not a \.npy array of numbers.* needs 768 bytes, and 784 follow"):
        read_raw(path)


def radial(shape: tuple[int, int], slices: int, coils: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples (Z, C, spokes, points) of an off-centre Gaussian, a closed form, and coordinates (spokes, points, 2)."""
    angle, radius = np.arange(30)[:, None] * np.pi / 30, np.linspace(-0.5, 0.5, 40)[None]
    k = np.stack([radius * np.sin(angle) * shape[0], radius * np.cos(angle) * shape[1]], -1)
    y, x = (k[..., axis] / n for axis, n in enumerate(shape))
    blob = np.exp(-2 * (np.pi * 2) ** 2 * (x**2 + y**2)) * np.exp(-2j * np.pi * (3 * y - 5 * x))  # sigma 2, at (3, -5)
    weights = (1 + np.arange(slices))[:, None, None, None] * (1 + 1j * np.arange(coils))[:, None, None]
    return weights * blob, k


def test_samples_along_a_trajectory(tmp_path: Path) -> None:
    samples, k = radial((24, 24), 3, 2)
    file, coords = saved(tmp_path / "k.npy", samples), str(saved(tmp_path / "at.npy", k))
    scan = read_raw(file, RawOptions(coords=coords, size=24, pixel=2.0, slices=(1, 3)))
    assert isinstance(scan.geometry, Trajectory) and scan.image_shape == (24, 24)
    assert np.allclose(scan.data.numpy(), samples[1:].reshape(2, 2, -1), atol=1e-6)
    assert scan.affine[2].tolist() == [0, 0, 2, 0]  # the second of three slices lies in the middle
    image, _ = reconstruct(replace(scan, noise=MRINoise(1e-3)), "cg-sense")
    assert divmod(int(image.data[0].argmax()), 24) == (12 + 3, 12 - 5)
    one = read_raw(saved(tmp_path / "one.npy", samples[0]), RawOptions(coords=coords, size=24, pixel=2.0))
    assert np.allclose(one.data.numpy(), samples[:1].reshape(1, 2, -1), atol=1e-6)
    np.save(tmp_path / "at.npy", k / 24)
    with pytest.raises(ValueError, match=r"k.npy, with coords at.npy: coords: reach .*coords_units='cycles/pixel'"):
        read_raw(file, RawOptions(coords=coords, size=24))
    again = read_raw(file, RawOptions(coords=coords, size=24, coords_units="cycles/pixel", pixel=1.0)).geometry
    assert isinstance(again, Trajectory) and torch.allclose(again.samples, scan.geometry.samples)
    with pytest.raises(OptionError, match="size: needed with coords"):
        read_raw(file, RawOptions(coords=coords))
    with pytest.raises(OptionError, match="size: only with coords"):
        read_raw(file, RawOptions(size=24))
    with pytest.raises(OptionError, match=r"coords: no such file, .*nowhere.npy"):
        read_raw(file, RawOptions(coords=str(tmp_path / "nowhere.npy"), size=24))


def test_the_command_takes_coordinates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, k = radial((24, 24), 1, 2)
    call = ["import", str(saved(tmp_path / "k.npy", samples)), "-o", str(tmp_path / "scan.h5")]
    call += ["--coords", str(saved(tmp_path / "at.npy", k)), "--pixel", "2"]
    assert main(call) == 2 and "--size: needed with coords" in capsys.readouterr().err
    assert main([*call, "--size", "24", "--coords-units", "radians/pixel"]) == 1
    assert "check coords_units and image_shape" in capsys.readouterr().err
    assert main([*call, "--size", "24"]) == 0
    scan = load_scan(tmp_path / "scan.h5")
    assert isinstance(scan.geometry, Trajectory) and scan.provenance["coords"] == "at.npy"
    assert np.allclose(scan.geometry.samples.numpy(), k.reshape(-1, 2))
