"""Retrospective undersampling: the samples kept are the measured ones, what was not measured stays out."""

import json
from dataclasses import replace
from pathlib import Path

import fastmri_maker as maker
import pytest
import torch

from medrecon.cli import main
from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.geometry import Cartesian, Trajectory
from medrecon.geometry.placement import isocentre_affine
from medrecon.sampling.lines import equispaced_mask
from medrecon.simulate.undersample import undersample

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, PADDING = (48, 40), 3


@pytest.fixture
def scan() -> Scan:
    """Two slices with zero padding, and maps."""
    data = torch.from_numpy(maker.kspace(2, 3, SHAPE, PADDING))
    mask = (data != 0).flatten(0, 1).any(0)
    affine = isocentre_affine(SHAPE, (1.0, 1.0), 3.0, 2)
    return Scan(
        "mri",
        data,
        SHAPE,
        affine,
        "a.u.",
        geometry=Cartesian((32, 32)),
        mask=mask,
        maps=torch.ones_like(data),
        noise=MRINoise(1e-3),
        provenance={"source": "x.h5"},
    )


def test_samples_and_true_acceleration(scan: Scan) -> None:
    pattern = equispaced_mask(SHAPE, 3, 8, torch.Generator().manual_seed(1))
    less = undersample(scan, pattern, details={"seed": 1, "acceleration_nominal": 3})
    assert scan.mask is not None and less.mask is not None
    kept = pattern & scan.mask
    assert torch.equal(less.mask, kept) and not bool(less.mask[:, :PADDING].any())
    assert torch.equal(less.data, torch.where(kept, scan.data, 0))
    record = less.provenance["undersampled"]
    assert record["acceleration"] == pytest.approx(float(scan.mask.sum() / kept.sum()))
    assert record["acceleration_of_grid"] == pytest.approx(48 * 40 / int(kept.sum())) == less.provenance["acceleration"]
    assert record["seed"] == 1 and record["acceleration_nominal"] == 3 and less.provenance["source"] == "x.h5"
    assert less.noise == scan.noise and less.geometry == scan.geometry


def test_columns_by_slice_and_without_a_mask(scan: Scan) -> None:
    columns = torch.arange(SHAPE[1]) % 2 == 0
    assert torch.equal(undersample(scan, columns).data, undersample(scan, columns.expand(SHAPE)).data)
    assert torch.equal(undersample(replace(scan, mask=None), columns).data, undersample(scan, columns).data)
    assert scan.mask is not None
    by_slice = torch.stack([scan.mask, scan.mask & (torch.arange(SHAPE[1]) < 30)])
    less = undersample(replace(scan, data=scan.data * by_slice[:, None], mask=by_slice), columns)
    assert less.mask is not None and torch.equal(less.mask, by_slice & columns)
    assert bool((less.data == 0)[~less.mask[:, None].expand_as(less.data)].all())


def test_maps_of_the_whole_scan_are_dropped(scan: Scan) -> None:
    pattern = torch.ones(SHAPE, dtype=torch.bool)
    less = undersample(scan, pattern)
    assert less.maps is None and less.provenance["undersampled"]["coil_maps"] == "dropped"
    assert undersample(scan, pattern, keep_maps=True).maps is scan.maps


def test_what_cannot_be_done(scan: Scan) -> None:
    with pytest.raises(ValueError, match=r"expected a bool mask \(48, 40\) or \(40,\), got torch.bool \[40, 48\]"):
        undersample(scan, torch.ones(SHAPE[::-1], dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got torch.float32"):
        undersample(scan, torch.ones(SHAPE))
    with pytest.raises(ValueError, match="leaves none of the measured samples"):
        undersample(scan, torch.arange(SHAPE[1]) < PADDING)
    geometry = Trajectory(torch.linspace(-9, 9, 20, dtype=torch.float64).reshape(10, 2))
    spokes = replace(scan, data=scan.data.flatten(2)[..., :10].contiguous(), mask=None, geometry=geometry)
    with pytest.raises(ValueError, match="only Cartesian k-space"):
        undersample(spokes, torch.ones(SHAPE, dtype=torch.bool))


def test_command(scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = str(save_scan(scan, tmp_path / "scan.h5")), tmp_path / "r4.h5"
    command = ["undersample", file, "-o", str(out), "--accel", "4", "--mask", "equispaced", "--acs", "6", "--seed", "5"]
    assert main([*command, "--dry-run", "--json"]) == 0 and not out.exists()
    planned = json.loads(capsys.readouterr().out)
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert planned.pop("dry_run") and planned == result
    less = load_scan(out)
    pattern = equispaced_mask(SHAPE, 4, 6, torch.Generator().manual_seed(5))
    assert scan.mask is not None and less.mask is not None and torch.equal(less.mask, pattern & scan.mask)
    assert result["acceleration_nominal"] == 4 and result["mask_seed"] == 5 and result["acs"] == 6
    assert main(command) == 1 and "--overwrite" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "x.nii"), "--accel", "4"]) == 2
    assert "ends in .h5" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "y.h5"), "--accel", "10", "--acs", "30"]) == 1
    assert "acs = 30 alone exceeds" in capsys.readouterr().err
    assert not (tmp_path / "y.h5").exists()
