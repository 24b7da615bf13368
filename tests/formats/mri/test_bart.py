"""BART files: the array itself, k-space in two and three dimensions, against BART where it is installed; bad files."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import fastmri_maker as maker
import numpy as np
import pytest
import torch

from medrecon import formats
from medrecon.acquisition.options import RawOptions
from medrecon.core import stage
from medrecon.core.scan import Scan
from medrecon.core.stack import Stack
from medrecon.core.volume import Volume
from medrecon.formats.bart.cfl import read_cfl, write_cfl
from medrecon.formats.bart.format import Bart
from medrecon.formats.raw_data import read_raw, recognise

pytestmark = pytest.mark.usefixtures("one_thread")


def bart(folder: Path, *arguments: str) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed")
    done = subprocess.run(["bart", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def axes(stack: maker.Complex, slices: int = 13) -> np.ndarray:
    """(Z, C, H, W) as BART stores it, slices along SLICE or (2) PHS2."""
    array = stack.transpose(2, 3, 1, 0)
    array = array.reshape(*array.shape[:2], 1, *array.shape[2:])
    return array.swapaxes(2, 4) if slices == 2 else array.reshape(*array.shape[:4], *[1] * 9, array.shape[4])


def cube(shape: tuple[int, int, int], coils: int) -> np.ndarray:
    """Three-dimensional k-space (PHS2, C, READ, PHS1) of random numbers and the transform of its definition."""
    rng = np.random.default_rng(0)
    size = (shape[0], coils, *shape[1:])
    return (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(np.complex64)


def along(kspace: np.ndarray, axis: int) -> np.ndarray:
    """Centred unitary inverse DFT along one axis, from its definition."""
    n = kspace.shape[axis]
    k = np.arange(n) - n // 2
    matrix = np.exp(2j * np.pi * np.outer(k, k) / n) / np.sqrt(n)
    return np.moveaxis(np.tensordot(matrix, np.moveaxis(kspace, axis, 0), 1), 0, axis)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 1, 4), (2, 1, 3, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1, 2)])
def test_round_trip_is_exact(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    array = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    assert write_cfl(array, tmp_path / "a.b") == tmp_path / "a.b.cfl"
    again = read_cfl(tmp_path / "a.b.hdr")
    assert again.shape == (*shape, *[1] * (16 - len(shape))) and np.array_equal(again.reshape(shape), array)
    raw = np.fromfile(tmp_path / "a.b.cfl", np.complex64)
    assert np.array_equal(raw, array.flatten(order="F"))


def test_bart_reads_what_we_write_and_we_what_bart_writes(tmp_path: Path) -> None:
    array = cube((1, 6, 5), 3)[0]
    write_cfl(array, tmp_path / "a")
    bart(tmp_path, "transpose", "0", "2", "a", "b")
    assert np.array_equal(read_cfl(tmp_path / "b")[..., *[0] * 13], array.transpose(2, 1, 0))


def test_slices(tmp_path: Path) -> None:
    stack = maker.kspace(3, 4, (30, 21))
    stack[..., ::2] = 0
    path = write_cfl(axes(stack), tmp_path / "k.cfl")
    assert recognise(path).name == recognise(path.with_suffix(".hdr")).name == "bart"
    scan = read_raw(path, RawOptions(pixel=0.5))
    assert np.array_equal(scan.data.numpy(), stack) and scan.mask is not None and scan.mask.shape == (30, 21)
    assert scan.affine[0, 0] == -0.5 and scan.provenance["slices_from"] == "SLICE"
    part = read_raw(path, RawOptions(slices=(1, 2), pixel=0.5))
    assert np.array_equal(part.data.numpy(), stack[1:2])
    torch.testing.assert_close(part.affine, scan.slices(1, 2).affine)
    assert read_raw(path).provenance["pixel_from"] == "not in the file: taken as 1 mm"


def test_three_dimensions_with_whole_planes(tmp_path: Path) -> None:
    kspace = cube((5, 8, 7), 2)
    kspace[..., 1::2] = 0  # the same lines in every plane
    scan = read_raw(write_cfl(axes(kspace, 2), tmp_path / "k.cfl"))
    np.testing.assert_allclose(scan.data.numpy(), along(kspace, 0), atol=1e-5)
    assert scan.provenance["slices_from"].startswith("PHS2") and scan.mask is not None
    assert scan.mask[0].tolist() == [True, False] * 3 + [True]
    part = read_raw(tmp_path / "k.cfl", RawOptions(slices=(2, 4)))
    assert torch.equal(part.data, scan.data[2:4])


def test_three_dimensions_undersampled_in_both(tmp_path: Path) -> None:
    kspace = cube((6, 8, 7), 2)
    kept = np.random.default_rng(2).random((6, 1, 1, 7)) < 0.5
    scan = read_raw(write_cfl(axes(kspace * kept, 2), tmp_path / "k.cfl"))
    expected = along(kspace * kept, 2).transpose(2, 1, 3, 0)  # slices READ; rows PHS1, columns PHS2
    np.testing.assert_allclose(scan.data.numpy(), expected, atol=1e-5)
    assert scan.image_shape == (7, 6) and scan.mask is not None
    assert np.array_equal(scan.mask.numpy(), kept[:, 0, 0].T)
    assert scan.provenance["slices_from"].startswith("READ")


def test_a_phantom_of_bart_stands_upright(tmp_path: Path) -> None:
    """Transform along PHS2 and image of BART's own three-dimensional phantom, equal to `bart fft`'s."""
    bart(tmp_path, "phantom", "-3", "-x", "16", "-s", "2", "-k", "k")
    bart(tmp_path, "fft", "-u", "-i", "7", "k", "image")
    scan = read_raw(tmp_path / "k.cfl")
    theirs = read_cfl(tmp_path / "image")[..., *[0] * 12].transpose(2, 3, 0, 1)
    np.testing.assert_allclose(maker.ifft(scan.data.numpy()), theirs, atol=1e-5 * np.abs(theirs).max())


def test_bad_arrays(tmp_path: Path) -> None:
    good = axes(maker.kspace(2, 4, (12, 10)))

    def written(array: np.ndarray) -> Path:
        return write_cfl(array, tmp_path / "k.cfl", overwrite=True)

    with pytest.raises(ValueError, match=r"k.cfl: TE 3: one image a slice is read; take one with `bart slice 5 INDEX`"):
        read_raw(written(np.ones((12, 10, 1, 4, 1, 3))))
    with pytest.raises(ValueError, match=r"READ 1: samples along a trajectory"):
        read_raw(written(np.ones((1, 24, 10, 4))))
    with pytest.raises(ValueError, match=r"PHS2 3 and SLICE 2: several slabs"):
        read_raw(written(np.ones((12, 10, 3, 4, *[1] * 9, 2))))
    with pytest.raises(ValueError, match=r"200 coils of 12 x 10 samples"):
        read_raw(written(np.ones((12, 10, 1, 200))))
    bad = good.copy()
    bad[3, 4, 0, 1, ..., 1] = np.nan
    with pytest.raises(ValueError, match=r"k-space: 1 NaN or infinite samples in slice 1"):
        read_raw(written(bad))
    with pytest.raises(ValueError, match=r"slice 0 is 0 everywhere"):
        read_raw(written(np.zeros((12, 10, 1, 4))))
    with pytest.raises(ValueError, match=r"slices 0:9 are not within 0:2"):
        read_raw(written(good), RawOptions(slices=(0, 9)))
    ragged = cube((4, 6, 5), 1)
    ragged[1, :, 2:4], ragged[2, :, 1] = 0, 0
    with pytest.raises(ValueError, match="samples differ along READ and along PHS2"):
        read_raw(written(axes(ragged, 2)))


def test_bad_pairs(tmp_path: Path) -> None:
    path = write_cfl(axes(maker.kspace(2, 4, (12, 10))), tmp_path / "k.cfl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"k.cfl: 7672 bytes, .*READ 12, PHS1 10, COIL 4, SLICE 2 of k.hdr need 7680"):
        read_raw(path)
    header = path.with_suffix(".hdr")
    header.write_text("# Dimensions\n12 ten\n")
    with pytest.raises(ValueError, match=r"k.hdr: expected '# Dimensions' and a line of up to 16 numbers"):
        read_raw(path)
    header.unlink()
    with pytest.raises(ValueError, match="not raw data medrecon reads"):
        read_raw(path)
    with pytest.raises(FileNotFoundError, match=r"k.hdr: no such file; a BART array is a pair"):
        read_cfl(path)
    with pytest.raises(ValueError, match="takes 1 to 16 axes and no empty array"):
        write_cfl(np.zeros((2, 0)), tmp_path / "e")


def test_writing_is_both_files_or_none(tmp_path: Path) -> None:
    (tmp_path / "k.hdr").write_text("mine")
    with pytest.raises(FileExistsError, match=r"k.hdr: exists already"):
        write_cfl(np.ones(3), tmp_path / "k")
    assert [f.name for f in tmp_path.iterdir()] == ["k.hdr"] and (tmp_path / "k.hdr").read_text() == "mine"
    write_cfl(np.ones(3), tmp_path / "k", overwrite=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["k.cfl", "k.hdr"]


def exported(maps: bool) -> Scan:
    stack = torch.from_numpy(maker.kspace(2, 3, (16, 12)))
    affine = torch.eye(4, dtype=torch.float64)
    return Scan("mri", stack, (16, 12), affine, "a.u.", maps=0.5 * stack if maps else None)


def test_maps_of_an_earlier_export_do_not_stay(tmp_path: Path) -> None:
    """They would be taken for those of the new k-space."""
    path, names = tmp_path / "k.cfl", lambda: sorted(f.name for f in tmp_path.iterdir())
    formats.export(exported(True), path, "bart")
    assert names() == ["k.cfl", "k.hdr", "k_maps.cfl", "k_maps.hdr"]
    path.unlink()
    with pytest.raises(FileExistsError, match=r"k\.hdr: exists already"):
        formats.export(exported(False), path, "bart")
    (tmp_path / "k.hdr").unlink()
    with pytest.raises(FileExistsError, match=r"k_maps\.cfl: exists already"):
        formats.export(exported(False), path, "bart")
    formats.export(exported(False), path, "bart", overwrite=True)
    assert names() == ["k.cfl", "k.hdr"]
    formats.export(exported(True), path, "bart", overwrite=True)
    image = Volume(torch.ones(1, 2, 3), torch.eye(4, dtype=torch.float64), "a.u.", "MR")
    Bart().write_image(Stack.of(image), path, overwrite=True)
    assert names() == ["k.cfl", "k.hdr"]


def test_maps_of_another_program_are_not_deleted(tmp_path: Path) -> None:
    formats.export(exported(False), tmp_path / "k.cfl", "bart")
    (tmp_path / "k_maps.hdr").write_text("# Dimensions\n1 \n# Creator\nBART v0.8\n")
    (tmp_path / "k_maps.cfl").write_bytes(bytes(8))
    with pytest.raises(
        FileExistsError, match=r"k_maps\.cfl: would be taken for a part of k\.cfl, and medrecon did not"
    ):
        formats.export(exported(False), tmp_path / "k.cfl", "bart", overwrite=True)
    assert (tmp_path / "k_maps.cfl").read_bytes() == bytes(8)


def test_a_kill_leaves_no_maps_beside_other_k_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off between any two of the moves; the next run in the folder finishes them."""
    real = os.replace
    for number in range(4):
        folder = tmp_path / str(number)
        formats.export(exported(True), folder / "k.cfl", "bart")
        left = [number]

        def replace(source: object, target: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            real(source, target)  # type: ignore[arg-type]

        new = exported(False)
        new = dataclasses.replace(new, data=2 * new.data)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            patch.setattr(stage, "_settle", lambda stage, parent: None)  # nor does it clear up behind itself
            patch.setattr(stage, "_leave", lambda stage: None)
            with contextlib.suppress(KeyboardInterrupt):
                formats.export(new, folder / "k.cfl", "bart", overwrite=True)
        stage.clear(folder)
        same = torch.equal(read_raw(folder / "k.cfl").data, new.data)
        assert same != (folder / "k_maps.cfl").exists() and same == (number > 0)


def test_an_image_is_not_written_over_another(tmp_path: Path) -> None:
    """Unless asked for; the first stays."""
    first, second = (
        Volume(torch.full((1, 2, 3), value), torch.eye(4, dtype=torch.float64), "a.u.", "MR") for value in (1.0, 2.0)
    )
    room = Bart()
    room.write_image(Stack.of(first), tmp_path / "x.cfl")
    with pytest.raises(FileExistsError):
        room.write_image(Stack.of(second), tmp_path / "x.cfl")
    assert read_cfl(tmp_path / "x").real.max() == 1
    room.write_image(Stack.of(second), tmp_path / "x.cfl", overwrite=True)
    assert read_cfl(tmp_path / "x").real.max() == 2
