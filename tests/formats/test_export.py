"""Scans for other programs: exact round trips, BART's own answers on our files, nothing half-written."""

import json
import logging
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import fastmri_maker as maker
import h5py
import numpy as np
import pytest
import torch

from medrecon import formats
from medrecon.cli import main
from medrecon.coils.maps.espirit import espirit
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.bart.cfl import read_cfl
from medrecon.formats.fastmri.write import write_fastmri
from medrecon.formats.measurement_file import save_scan
from medrecon.formats.raw_data import read_raw
from medrecon.geometry import Cartesian, ParallelGeometry, Trajectory
from medrecon.geometry.placement import isocentre_affine
from medrecon.numerics.linalg import cg
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask
from medrecon.sampling.two_axes import poisson_mask

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (64, 48)


def scan_of(
    shape: tuple[int, int] = SHAPE,
    *,
    coils: int = 4,
    accel: float = 1,
    padding: int = 0,
    maps: bool = False,
    crop: tuple[int, int] | None = None,
) -> Scan:
    data = torch.from_numpy(maker.kspace(2, coils, shape, padding))
    generator = torch.Generator().manual_seed(0)
    mask = random_mask(shape, accel, 12, generator) if accel > 1 else torch.ones(shape, dtype=torch.bool)
    mask[:, :padding] = mask[:, shape[1] - padding :] = False
    affine = isocentre_affine(shape, maker.PIXEL, 4.5, 2)
    geometry = Cartesian(crop)
    return Scan(
        "mri",
        data * mask,
        shape,
        affine,
        "a.u.",
        geometry=geometry,
        mask=mask,
        maps=espirit(data, acs=12) if maps else None,
    )


def bart(folder: Path, *arguments: str) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed")
    done = subprocess.run(["bart", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [(64, 48), (33, 46), (32, 45)])
def test_bart_round_trip(shape: tuple[int, int], tmp_path: Path) -> None:
    scan = scan_of(shape, accel=2)
    again = read_raw(formats.export(scan, tmp_path / "k.cfl", "bart"))
    assert torch.equal(again.data, scan.data) and scan.mask is not None and again.mask is not None
    assert torch.equal(again.mask, scan.mask)
    pattern = read_cfl(tmp_path / "k_mask")
    assert pattern.shape[13] == 2 and np.array_equal(pattern[..., *[0] * 11, 1, 0, 0] != 0, scan.mask.numpy())


@pytest.mark.parametrize("shape", [(64, 46), (65, 47)])
def test_bart_fft_of_ours_is_our_image(shape: tuple[int, int], tmp_path: Path) -> None:
    scan = scan_of(shape)
    formats.export(scan, tmp_path / "k.cfl", "bart")
    bart(tmp_path, "fft", "-u", "-i", "3", "k", "image")
    bart(tmp_path, "rss", "8", "image", "rss")
    theirs = read_cfl(tmp_path / "rss")[:, :, *[0] * 11, :, 0, 0].transpose(2, 0, 1)
    ours = maker.rss(scan.data.numpy(), shape)
    assert np.abs(theirs - ours).max() < 1e-6 * ours.max()


def test_bart_pics_solves_the_same_problem(tmp_path: Path) -> None:
    """Least squares on our k-space, maps and pattern: BART's image is ours. (Sizes are multiples of 4: BART's sign of
    the image is (-1)^(n/2), and its pics is wrong for odd n.)"""
    scan = scan_of(accel=2, maps=True)
    assert scan.maps is not None and scan.mask is not None
    formats.export(scan, tmp_path / "k.cfl", "bart")
    bart(tmp_path, "pics", "-l2", "-r", "0.001", "-i", "30", "-w", "1", "-S", "-p", "k_mask", "k", "k_maps", "x")
    theirs = torch.from_numpy(read_cfl(tmp_path / "x")[:, :, *[0] * 11, :, 0, 0].transpose(2, 0, 1).copy())
    A = CartesianMRI(scan.maps, scan.mask)
    ours = cg(lambda x: A.gram(x) + 1e-3 * x, A.adjoint(scan.data), ndim=2, iterations=30).x
    assert float((theirs - ours).norm() / ours.norm()) < 1e-4
    assert float((theirs - A.adjoint(scan.data)).norm() / ours.norm()) > 0.1  # not what any zero-filling gives


def test_odd_sizes_warn_of_pics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        formats.export(scan_of((33, 46)), tmp_path / "k.cfl", "bart")
    assert "bart pics" in caplog.text


def test_volume_for_bart(tmp_path: Path) -> None:
    volume = Volume(torch.rand(3, 5, 4), torch.eye(4, dtype=torch.float64), "a.u.", "MR")
    formats.write(volume, tmp_path / "x.cfl")
    array = read_cfl(tmp_path / "x")
    assert array.shape == (5, 4, *[1] * 11, 3, 1, 1)
    assert np.array_equal(array[:, :, *[0] * 11, :, 0, 0].real, volume.data.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("shape", "padding", "crop"), [((64, 48), 0, None), ((64, 46), 5, (32, 32)), ((33, 47), 3, (20, 31))]
)
@pytest.mark.parametrize("accel", [1.0, 2.0])
@pytest.mark.parametrize("coils", [1, 4])
def test_fastmri_round_trip(
    shape: tuple[int, int], padding: int, crop: tuple[int, int] | None, accel: float, coils: int, tmp_path: Path
) -> None:
    scan = scan_of(shape, coils=coils, accel=accel, padding=padding, crop=crop)
    path = formats.export(scan, tmp_path / "f.h5", "fastmri")
    again = read_raw(path)
    assert torch.equal(again.data, scan.data) and again.crop == scan.crop
    assert again.mask is not None and scan.mask is not None and torch.equal(again.mask, scan.mask)
    torch.testing.assert_close(again.affine, scan.affine, atol=1e-9, rtol=0)
    with h5py.File(path) as h5:
        assert h5["kspace"].shape == ((2, *shape) if coils == 1 else (2, coils, *shape))
        target = "reconstruction_rss" if coils > 1 else "reconstruction_esc"
        assert ("mask" in h5) == (accel > 1) and (target in h5) == (accel == 1)
        if accel == 1:
            expected = maker.rss(scan.data.numpy(), crop or shape)
            np.testing.assert_allclose(h5[target][()], expected, atol=1e-6 * expected.max())
            assert h5.attrs["max"] == pytest.approx(expected.max())
            assert formats.read(path).data.shape == (2, *(crop or shape))


def test_ismrmrds_own_reader_takes_our_header(tmp_path: Path) -> None:
    ismrmrd = pytest.importorskip("ismrmrd")
    path = formats.export(scan_of((64, 46), padding=5, crop=(32, 32)), tmp_path / "f.h5", "fastmri")
    with h5py.File(path) as h5:
        header = ismrmrd.xsd.CreateFromDocument(h5["ismrmrd_header"][()])
    encoding = header.encoding[0]
    assert (encoding.encodedSpace.matrixSize.x, encoding.encodedSpace.matrixSize.y) == (64, 46)
    assert encoding.reconSpace.fieldOfView_mm.y == pytest.approx(32 * maker.PIXEL[1])
    limits = encoding.encodingLimits.kspace_encoding_step_1
    assert 46 // 2 - limits.center == 5 and limits.maximum + 1 == 36  # fastMRI's padding_left, and the columns measured
    assert header.acquisitionSystemInformation.receiverChannels == 4


def test_fastmri_target_of_another_grid_is_refused(tmp_path: Path) -> None:
    scan = scan_of()
    volume = Volume(torch.rand(2, 8, 8), torch.eye(4, dtype=torch.float64), "a.u.", "MR")
    with pytest.raises(ValueError, match=r"target: expected \(2, 64, 48\), got \(2, 8, 8\)"):
        write_fastmri(scan, tmp_path / "f.h5", target=volume)
    given = replace(volume, data=torch.rand(2, *SHAPE))
    assert torch.equal(formats.read(write_fastmri(scan, tmp_path / "f.h5", target=given)).data, given.data)


@pytest.mark.parametrize("format", formats.exports())
def test_what_cannot_be_written_is_refused(format: str, tmp_path: Path) -> None:
    scan, suffix = scan_of(), formats.exports()[format].suffix
    out = tmp_path / ("out" + suffix)
    bad = scan.data.clone()
    bad[1, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite samples in slice 1; nothing written"):
        formats.export(replace(scan, data=bad), out, format)
    with pytest.raises(ValueError, match=f"a {format} file ends in {suffix}"):
        formats.export(scan, tmp_path / "out.dat", format)
    assert not list(tmp_path.iterdir())
    formats.export(scan, out, format)
    written = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="overwrite"):
        formats.export(scan_of(accel=2), out, format)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == written
    formats.export(scan_of(accel=2), out, format, overwrite=True)
    assert out.read_bytes() != written[out.name]


def test_refusals_of_each_format(tmp_path: Path) -> None:
    scan = scan_of()
    with pytest.raises(ValueError, match=r"unknown export format 'fastmr'; did you mean 'fastmri'\?"):
        formats.export(scan, tmp_path / "x.h5", "fastmr")
    disc = replace(scan, mask=poisson_mask(SHAPE, 2, 10, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="fastMRI's mask is of whole columns"):
        formats.export(disc, tmp_path / "x.h5", "fastmri")
    edge = torch.zeros(SHAPE, dtype=torch.bool)
    edge[:, -9:] = True
    with pytest.raises(ValueError, match="no column up to zero frequency"):
        formats.export(replace(scan, mask=edge), tmp_path / "x.h5", "fastmri")
    spokes = Scan(
        "mri",
        scan.data.flatten(2)[..., :10].contiguous(),
        SHAPE,
        scan.affine,
        "a.u.",
        geometry=Trajectory(torch.linspace(-3, 3, 20, dtype=torch.float64).reshape(10, 2)),
    )
    for name in ("bart", "fastmri"):
        with pytest.raises(ValueError, match="Cartesian k-space"):
            formats.export(spokes, tmp_path / ("x" + formats.exports()[name].suffix), name)
    rays = ParallelGeometry((0.0, 1.0), 3, 1.0)
    ct = Scan("ct", torch.zeros(1, 2, 3), (3, 3), scan.affine, "HU", geometry=rays)
    with pytest.raises(ValueError, match="a CT scan; bart holds k-space"):
        formats.export(ct, tmp_path / "x.cfl", "bart")
    (tmp_path / "k_maps.hdr").write_text("mine")
    with pytest.raises(FileExistsError, match=r"k_maps.hdr: exists already"):
        formats.export(scan_of(maps=True), tmp_path / "k.cfl", "bart")
    assert [f.name for f in tmp_path.iterdir()] == ["k_maps.hdr"]


@pytest.mark.parametrize(
    ("format", "name", "said"), [("bart", "k.cfl", 1), ("fastmri", "k.h5", 1), ("ismrmrd", "k.h5", 0)]
)
def test_a_place_that_is_lost_is_said(
    format: str, name: str, said: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a scan that lies somewhere; the dry run says so too. Nothing is said of one that has no place."""
    scan = scan_of()
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    oblique = save_scan(replace(scan, affine=turn @ scan.affine), tmp_path / "oblique.h5")
    for more in ("--dry-run", "--json"):
        assert main(["export", str(oblique), "-o", str(tmp_path / name), "--format", format, more]) == 0
        assert capsys.readouterr().err.count(f"{name}: {format} has no room for position and orientation") == said
    formats.export(scan, tmp_path / ("axial" + Path(name).suffix), format)
    assert "no room" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["k.cfl", "k.h5"])
def test_samples_outside_the_mask_are_not_exported(name: str, tmp_path: Path) -> None:
    """A scan made in Python may still hold them; they would come back as measured."""
    scan, under = scan_of(), scan_of(accel=3)
    format = "bart" if name == "k.cfl" else "fastmri"
    back = read_raw(formats.export(replace(scan, mask=under.mask), tmp_path / name, format))
    assert torch.equal(back.mask, under.mask) and torch.equal(back.data, under.data)
    if format == "fastmri":
        with h5py.File(tmp_path / name) as h5:
            assert np.array_equal(h5["kspace"][()], under.data.numpy())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = scan_of()
    file, out = str(save_scan(scan, tmp_path / "scan.h5")), str(tmp_path / "k.cfl")
    command = ["export", file, "-o", out, "--format", "bart", "--slices", "1:2", "--json"]
    assert main([*command, "--dry-run"]) == 0 and not Path(out).exists()
    assert json.loads(capsys.readouterr().out)["dry_run"] is True
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["data"] == [1, 4, *SHAPE]
    assert torch.equal(read_raw(out).data, scan.data[1:])
    assert main(command) == 1 and "--overwrite" in capsys.readouterr().err
    assert main(["export", file, "-o", out, "--format", "fastmri"]) == 2
    assert "a fastmri file ends in .h5" in capsys.readouterr().err
    assert main(["export", file, "-o", out, "--format", "dicom"]) == 2
    assert "known are bart, fastmri" in capsys.readouterr().err
