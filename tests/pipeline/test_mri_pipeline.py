"""MRI from end to end: trajectories, crops, ways to find coil maps, which solver is for which scan."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from medrecon import formats
from medrecon.cli.main import main
from medrecon.cli.options import Maps
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan
from medrecon.geometry import Cartesian, ParallelGeometry
from medrecon.pipeline import reconstruct, solver_class
from medrecon.pipeline.choose import suitable
from medrecon.pipeline.coil_maps import METHODS
from medrecon.pipeline.problem import build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_mri, simulate_noncartesian

Make = Callable[..., Volume]


@pytest.fixture(scope="module")
def disc(disc_volume: Make) -> Volume:
    return disc_volume("MR", 64, 2)


@pytest.fixture(scope="module")
def spokes(disc: Volume) -> Scan:
    return simulate_noncartesian(disc, readouts=40, coils=4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def lines(disc: Volume) -> Scan:
    return simulate_mri(disc, accel=2, acs=16, coils=4, generator=torch.Generator().manual_seed(0))


def test_command_line_along_a_trajectory(tmp_path: Path, disc: Volume) -> None:
    source, scan = tmp_path / "disc.nii.gz", tmp_path / "radial.h5"
    formats.write(disc, source)
    simulate = ["simulate", str(source), "-o", str(scan), "--modality", "mri", "--coils", "4"]
    assert main([*simulate, "--trajectory", "golden", "--readouts", "40"]) == 0
    assert load_scan(scan).data.shape == (2, 4, 40 * 128)
    scores = {}
    for solver in ("zero-filled", "cg-sense", "tv"):
        image = tmp_path / f"{solver}.nii.gz"
        assert main(["recon", str(scan), "-o", str(image), "--solver", solver]) == 0
        scores[solver] = evaluate(formats.read(image), disc)["psnr_db"]
    assert scores["zero-filled"] < scores["cg-sense"] < scores["tv"] and scores["tv"] > 30
    assert main([*simulate, "--overwrite", "--trajectory", "spiral", "--accel", "4"]) == 2  # lines of a grid only
    assert main([*simulate, "--overwrite", "--readouts", "4"]) == 2
    assert main([*simulate, "--overwrite", "--trajectory", "golden", "--matched"]) == 2
    assert main(["recon", str(scan), "-o", str(tmp_path / "x.nii"), "--solver", "grappa"]) == 2


def test_the_noise_along_a_trajectory_comes_from_its_far_samples(disc: Volume) -> None:
    """The tenth nearest to the edge, of 24 columns as of 64 rows: noise of 3 there, and 100 in all others."""
    scan = simulate_noncartesian(
        replace(disc, data=disc.data[..., 20:44]), readouts=60, coils=4, generator=torch.Generator().manual_seed(0)
    )
    edge = torch.tensor(scan.image_shape) / 2
    radius = (scan.geometry.samples / edge).norm(dim=1)
    far = radius >= radius.quantile(0.89)
    noise = 3 * torch.randn(scan.data.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    scan = replace(scan, data=torch.where(far, noise, 100.0), noise=None)
    assert build_problem(scan, "cpu").facts["sigma"] == pytest.approx(3, rel=0.05)


def test_batches_and_slices_of_a_trajectory_are_those_of_the_whole(spokes: Scan) -> None:
    whole, _ = reconstruct(spokes, "cg-sense")
    part, _ = reconstruct(spokes, "cg-sense", slices=(1, 2), batch=1)
    assert torch.allclose(part.data[0], whole.data[1], atol=1e-4 * float(whole.data.max()))


def test_which_solver_is_for_which_scan(spokes: Scan, lines: Scan, disc: Volume) -> None:
    grid_only = {"grappa", "spirit", "nlinv"}
    partial_only = {"homodyne", "pocs", "phase-constrained"}
    assert not (grid_only | partial_only | {"llr"}) & set(suitable(spokes))
    assert grid_only <= set(suitable(lines)) and not partial_only & set(suitable(lines))
    half = simulate_mri(disc, accel=1, acs=16, partial_fourier=0.625, generator=torch.Generator().manual_seed(0))
    assert grid_only | partial_only <= set(suitable(half))
    for name in grid_only | partial_only:
        with pytest.raises(ValueError, match="along a trajectory"):
            solver_class(name, "mri", noncartesian=True)


def test_the_crop_is_cut_after_the_reconstruction(lines: Scan) -> None:
    whole, _ = reconstruct(lines, "zero-filled")
    cut, _ = reconstruct(replace(lines, geometry=Cartesian((40, 33))), "zero-filled")
    assert torch.equal(cut.data, whole.data[:, 12:52, 16:49])
    corner = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    moved = torch.tensor([16.0, 12, 0, 1], dtype=torch.float64)  # column, row
    assert torch.allclose(cut.affine @ corner, whole.affine @ moved)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "auto"])
def test_every_way_to_coil_maps_gives_the_image(method: str, lines: Scan, disc: Volume) -> None:
    one = replace(lines.slices(0, 1))
    image, report = reconstruct(one, "cg-sense", maps=method)  # type: ignore[arg-type]
    assert report["coil_maps"] == method
    truth = disc.data[0]
    error = torch.linalg.vector_norm((image.data[0] - truth)[truth > 0]) / torch.linalg.vector_norm(truth)
    assert float(error) < 0.12
    with pytest.raises(ValueError, match="no coils"):
        reconstruct(
            replace(
                one,
                modality="ct",
                data=torch.zeros(1, 4, 4),
                units="HU",
                geometry=ParallelGeometry((0.0, 1.0, 2.0, 3.0), 4, 1.0),
                noise=None,
                maps=None,
                mask=None,
            ),
            "fbp",
            maps="espirit",
        )


def test_the_command_line_knows_the_same_ways() -> None:
    assert get_args(Maps) == METHODS


def test_no_calibration_lines_name_the_way_out(lines: Scan) -> None:
    hollow = lines.mask.clone() if lines.mask is not None else torch.zeros(0)
    hollow[:, 30:35] = False
    bare = replace(lines, data=lines.data * hollow, mask=hollow, maps=None)
    with pytest.raises(ValueError, match="ACS"):
        reconstruct(bare, "cg-sense")


@pytest.mark.parametrize("acs", [8, 10, 16])
def test_maps_of_a_narrow_calibration_region_are_told_of(
    acs: int, disc: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    """ESPIRiT's maps are then 0 in part of the object, and the image with them."""
    scan = simulate_mri(disc, accel=4, acs=acs, coils=8, generator=torch.Generator().manual_seed(0))
    for one in (scan, replace(scan, maps=None)):  # simulated maps are ESPIRiT's, too
        caplog.clear()
        reconstruct(one, "cg-sense")
        assert ("--maps walsh" in caplog.text) is (acs < 12)
    caplog.clear()
    reconstruct(scan, "cg-sense", maps="walsh")
    assert "--maps" not in caplog.text
