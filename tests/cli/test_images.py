"""Images on the command line: units and modality that the file does not say, bad slices, tables for people."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medrecon import formats
from medrecon.cli import main
from medrecon.core.units import MU_WATER
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan

Make = Callable[..., Volume]


def bare(path: Path, data: torch.Tensor) -> str:
    """NIfTI of another program: nothing says what its values are."""
    nibabel.save(nibabel.Nifti1Image(data.permute(2, 1, 0).numpy(), np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return str(path)


def simulated(source: str, out: Path, *more: str) -> int:
    return main(["simulate", source, "-o", str(out), "--modality", "ct", "--views", "8", "--size", "16", *more])


def test_attenuation_is_simulated_as_such(
    tmp_path: Path, disc_volume: Make, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    hu = disc_volume("CT").data
    mu = MU_WATER * (1 + hu / 1000)
    assert simulated(bare(tmp_path / "hu.nii", hu), tmp_path / "hu.h5") == 0
    assert "no voxel is below -200" not in caplog.text
    truth = load_scan(tmp_path / "hu.h5").data
    for units, values in (("1/mm", mu), ("1/cm", 10 * mu)):
        assert simulated(bare(tmp_path / "mu.nii", values), tmp_path / "mu.h5", "--units", units, "--overwrite") == 0
        assert "no voxel is below -200" not in caplog.text
        torch.testing.assert_close(load_scan(tmp_path / "mu.h5").data, truth, rtol=0, atol=0.05)
    for said in ((), ("--units", "HU")):
        capsys.readouterr()
        assert simulated(str(tmp_path / "mu.nii"), tmp_path / "as_hu.h5", *said, "--dry-run") == 1
        assert re.search(r"mu\.nii: .*0 to 0\.3072 are not HU", capsys.readouterr().err)
    bare(tmp_path / "soft.nii", hu.clamp_min(-50))
    assert simulated(str(tmp_path / "soft.nii"), tmp_path / "soft.h5") == 0
    assert "soft.nii: no voxel is below -200" in caplog.text and "--units 1/mm" in caplog.text
    caplog.clear()
    assert simulated(str(tmp_path / "soft.nii"), tmp_path / "soft.h5", "--units", "HU", "--overwrite") == 0
    assert "no voxel" not in caplog.text and "look like" not in caplog.text
    for name, values, like in (("grey", (hu + 1000) / 8, "8 bits"), ("shift", (hu + 1024).clamp_min(0), "HU + 1024")):
        caplog.clear()
        assert simulated(bare(tmp_path / f"{name}.nii", values), tmp_path / f"{name}.h5", "--units", "HU") == 0
        assert f"{name}.nii: taken as HU, as was said; values" in caplog.text and like in caplog.text


def test_units_are_refused_where_the_file_says_them(
    tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    formats.write(disc_volume("CT", 32), tmp_path / "series")
    assert simulated(str(tmp_path / "series"), tmp_path / "x.h5", "--units", "1/mm") == 1
    assert "says itself that its values are HU, not 1/mm" in capsys.readouterr().err
    argv = ["simulate", str(tmp_path / "series"), "-o", str(tmp_path / "x.h5"), "--modality", "mri", "--units", "HU"]
    assert main(argv) == 2
    assert "--units HU: only for --modality ct" in capsys.readouterr().err


def test_ct_of_another_program_is_evaluated_and_described(
    tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    data = disc_volume("CT", 32).data
    a, b = bare(tmp_path / "a.nii", data), bare(tmp_path / "b.nii", data + 5)
    assert main(["evaluate", b, a, "--modality", "ct", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["modality"], result["units"]) == ("CT", "HU")
    assert result["bias"] == pytest.approx(5) and result["rmse"] == pytest.approx(5)
    assert main(["evaluate", b, a, "--modality", "ct"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("slice ")] == [["slice", str(k)] for k in range(3)]
    assert [line.split(",")[1].split()[0] for line in lines[-4:]] == ["full", "soft", "lung", "bone"]
    assert all(line.split()[-1] == "5" for line in lines if line.startswith("all, full"))
    assert main(["info", a, "--modality", "ct", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units"] == "HU"
    formats.write(disc_volume("CT", 32), tmp_path / "series")
    assert main(["info", str(tmp_path / "series"), "--modality", "mri"]) == 1
    assert "says its modality itself" in capsys.readouterr().err


def test_an_image_that_covers_little_says_so(
    tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = disc_volume("CT", 32)
    formats.write(volume, tmp_path / "all.nii.gz")
    formats.write(volume.slices(0, 1), tmp_path / "one.nii.gz")
    assert main(["evaluate", str(tmp_path / "one.nii.gz"), str(tmp_path / "all.nii.gz")]) == 0
    assert "compared on 33 % of the reference's voxels" in capsys.readouterr().err


def test_a_bad_slice_that_is_left_out_costs_nothing(
    tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    data = disc_volume("CT", 32).data
    data[1, 4, 4] = torch.nan
    source = bare(tmp_path / "hole.nii", data)
    assert simulated(source, tmp_path / "x.h5") == 1
    assert "hole.nii: NaN or infinite values, first in slice 1" in capsys.readouterr().err
    assert simulated(source, tmp_path / "x.h5", "--slices", "1:3") == 1
    assert "first in slice 1" in capsys.readouterr().err
    assert simulated(source, tmp_path / "x.h5", "--slices", "2") == 0
    assert len(load_scan(tmp_path / "x.h5").data) == 1


def test_a_slice_that_fails_is_named_and_the_exit_code_says_so(
    tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    from medrecon.simulate import simulate_mri

    scan = simulate_mri(disc_volume("MR", 32), accel=2, acs=12, coils=2, generator=torch.Generator().manual_seed(0))
    data = scan.data.clone()
    data[2] = 0
    save_scan(replace(scan, data=data, maps=None), tmp_path / "mr.h5")
    argv = ["recon", str(tmp_path / "mr.h5"), "-o", str(tmp_path / "x.nii.gz"), "--solver", "zero-filled"]
    assert main([*argv, "--json"]) == 1
    text = capsys.readouterr()
    assert "1 of 3 slices failed: 2" in text.err
    assert list(json.loads(text.out)["failed"]) == ["2"]
    assert [float(s.max()) > 0 for s in formats.read(tmp_path / "x.nii.gz").data] == [True, True, False]
    assert main([*argv, "--overwrite", "--slices", "0:2"]) == 0


def test_raw_data_point_to_their_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kspace.npy"
    np.save(path, np.ones((2, 8, 8), np.complex64))
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr()
    assert "format: npy_kspace" in text.out
    assert f"medrecon import {path} -o scan.h5 --dry-run" in text.err


def test_clipped_voxels_are_said_below_and_above(
    tmp_path: Path, disc_volume: Make, caplog: pytest.LogCaptureFixture
) -> None:
    volume = disc_volume("CT", 32)
    volume.data[0, 0, :3] = -1500
    formats.write(volume, tmp_path / "below")
    assert "3 voxels below -1024 HU (down to -1500) are written as -1024: noise in air, no tissue" in caplog.text
    assert "above" not in caplog.text
    caplog.clear()
    volume.data[0, 0, :3] = 70000
    formats.write(volume, tmp_path / "above")
    assert "3 voxels above 64511 HU (up to 70000)" in caplog.text and "look at the image" in caplog.text


def test_errors_in_the_table_of_evaluate_have_units(
    tmp_path: Path, disc_volume: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    for modality, units in (("CT", "HU"), ("MR", "a.u.")):
        volume = disc_volume(modality, 16)
        formats.write(volume, tmp_path / f"{modality}.nii")
        formats.write(volume.map(lambda x: x + 3), tmp_path / f"{modality}3.nii")
        assert main(["evaluate", str(tmp_path / f"{modality}3.nii"), str(tmp_path / f"{modality}.nii")]) == 0
        out = capsys.readouterr().out
        assert re.search(rf"psnr_db +ssim +nmse +rmse \[{units}\] +bias \[{units}\]", out)
        assert re.search(r"slice 0 .* 3 +3 *$", out, re.MULTILINE)
