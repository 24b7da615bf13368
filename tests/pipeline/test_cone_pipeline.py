"""Cone-beam and helical scans from a file to a volume: HU and places right, by every solver that does them."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ct_phantoms import Ellipsoid, views
from torch import Tensor

from medrecon import formats
from medrecon.cli import main
from medrecon.core.noise import CTNoise, photons_by_view
from medrecon.core.scan import Scan
from medrecon.core.units import MU_WATER, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import load_scan, save_scan
from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.pipeline import reconstruct, solver_classes
from medrecon.simulate import simulate_ct
from medrecon.simulate.dose import reduce_dose

pytestmark = pytest.mark.usefixtures("one_thread")
BODY = Ellipsoid((4.0, -3.0, 0.0), (38.0, 32.0, 22.0), MU_WATER)
BALL = Ellipsoid((14.0, 9.0, 5.0), (9.0, 9.0, 9.0), MU_WATER)
"""In the body: +1000 HU, off the middle along every axis."""
GRID = VolumeGrid((18, 32, 36), (3.0, 3.0, 2.5))
TURN = math.radians(25)
AFFINE = torch.tensor(
    [
        [-2.5 * math.cos(TURN), 0, -3 * math.sin(TURN), 31],
        [0, -3, 0, -17],
        [-2.5 * math.sin(TURN), 0, 3 * math.cos(TURN), 212],
        [0, 0, 0, 1],
    ],
    dtype=torch.float64,
)
"""Of GRID, to an oblique patient system."""
RAYS = {
    "circle": ConeGeometry(views(60), (24, 48), (5.0, 4.0), 400.0, 200.0, det_offset=(1.5, 1.0)),
    "helix": ConeGeometry.helix(40, 3.0, 30.0, (14, 48), (5.0, 4.0), 400.0, 200.0, start=0.3),
    "flying focus": ConeGeometry(
        views(60, 6 * math.pi),
        (14, 48),
        (5.0, 4.0),
        400.0,
        200.0,
        tuple(np.linspace(40, -40, 60)),
        detector="arc",
        focal_shifts=tuple((0.004 * (-1) ** k, 0.0, 0.5 * (k % 2)) for k in range(60)),
    ),
}
NOISE = CTNoise(5e4, model_absolute=0.02)
"""The voxels are coarse: chi^2/m of the phantom's own is 1 with this model error."""


def measured(name: str) -> Scan:
    """Exact line integrals of the phantom with counting noise: no projector has a part in them."""
    rays = RAYS[name]
    exact = (BODY.sinogram(rays) + BALL.sinogram(rays))[None]
    data = CTNoise(5e4).simulate(exact, torch.Generator().manual_seed(0))
    return Scan("ct", data, GRID.shape, AFFINE, "HU", rays, noise=NOISE, mu_water=MU_WATER)


def place(phantom: Ellipsoid, grid: VolumeGrid, affine: Tensor) -> Tensor:
    """(3,) RAS of a phantom's middle [mm], by the convention: columns along x, rows against y, slices along z."""
    (x, y, z), (depth, height, width), (dz, dy, dx) = phantom.center, grid.shape, grid.spacing
    index = (x / dx + (width - 1) / 2, (height - 1) / 2 - y / dy, z / dz + (depth - 1) / 2, 1.0)
    return (affine @ torch.tensor(index, dtype=torch.float64))[:3]


def found(volume: Volume, grid: VolumeGrid = GRID) -> Tensor:
    """(3,) RAS of the middle of what is in the body and brighter than halfway from it to the ball [mm]."""
    weight = ((volume.data.double() - 500) * BODY.inside(grid, 0.9)).clamp(0, 500)
    z, y, x = (weight.sum(axes) for axes in ((1, 2), (0, 2), (0, 1)))
    middle = [float((w * torch.arange(len(w))).sum() / w.sum()) for w in (x, y, z)]
    return (volume.affine @ torch.tensor([*middle, 1.0], dtype=torch.float64))[:3]


def water(volume: Volume, grid: VolumeGrid = GRID) -> float:
    """Mean HU in the body, away from its surface and from the ball."""
    inside = BODY.inside(grid, 0.75) & ~BALL.inside(grid, 1.5)
    return float(volume.data[inside].mean())


def off(volume: Volume, grid: VolumeGrid = GRID, affine: Tensor = AFFINE) -> float:
    """Distance of the ball from its place [mm]."""
    return float((found(volume, grid) - place(BALL, grid, affine)).norm())


SOLVERS = [
    ("circle", "fbp", {}, 4.0),
    ("circle", "sirt", {}, 25.0),
    ("circle", "huber", {"iterations": 60}, 4.0),
    ("helix", "cgls", {}, 12.0),
    ("helix", "tv", {"iterations": 60}, 5.0),
    ("helix", "sart", {}, 12.0),
    ("flying focus", "asd-pocs", {"iterations": 8}, 5.0),
]


@pytest.mark.parametrize(("name", "solver", "settings", "hu"), SOLVERS, ids=[f"{s[1]}, {s[0]}" for s in SOLVERS])
def test_hu_and_places_are_right(name: str, solver: str, settings: dict[str, Any], hu: float) -> None:
    volume, report = reconstruct(measured(name), solver, settings=settings)
    assert tuple(volume.data.shape) == GRID.shape and torch.equal(volume.affine, AFFINE) and volume.units == "HU"
    assert water(volume) == pytest.approx(0, abs=hu) and off(volume) < 0.6
    assert float(volume.data[BALL.inside(GRID, 0.6)].mean()) == pytest.approx(1000, abs=100)
    assert report["slices"] == [0, 18] and len(report["chi2_slices"]) == 1 and report["chi2"] < 2.5


def test_every_solver_without_a_prior_runs() -> None:
    """Those that the table above does not know have no figures to meet, but the volume must be where it belongs."""
    does = {name for name, cls in solver_classes().items() if "ct" in cls.modalities and not cls.needs_prior}
    known = {solver for _, solver, _, _ in SOLVERS}
    assert known <= does
    for name in does - known:
        volume, _ = reconstruct(measured("circle"), name)
        assert tuple(volume.data.shape) == GRID.shape and torch.equal(volume.affine, AFFINE)
        assert bool(volume.data.isfinite().all())


def test_misplaced_volumes_are_noticed() -> None:
    """Controls: the same data with the volume turned round, and moved along the axis by a slice."""
    scan = measured("circle")
    volume, _ = reconstruct(scan, "fbp")
    for axis in range(3):
        assert off(replace(volume, data=volume.data.flip(axis))) > 5
    lifted = replace(scan.geometry, heights=(3.0,) * 60)
    assert 2.5 < off(reconstruct(replace(scan, geometry=lifted), "fbp")[0]) < 3.5


@pytest.mark.parametrize("name", RAYS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    photons = 1e4 + torch.arange(48.0).reshape(1, 1, 1, 48)
    scan = replace(measured(name), noise=replace(NOISE, i0=photons))
    path = save_scan(scan, tmp_path / "scan.h5")
    back = load_scan(path)
    assert torch.equal(back.data, scan.data) and torch.equal(back.affine, AFFINE) and back.image_shape == GRID.shape
    assert back.rays == scan.rays == RAYS[name] and back.grid == scan.grid
    assert np.allclose(back.grid.spacing, GRID.spacing) and torch.equal(back.noise.i0, photons)
    with h5py.File(path) as h5:
        assert h5.attrs["version"] == 2 and h5["data"].chunks == (1, 1, *RAYS[name].det_shape)
    with pytest.raises(ValueError, match=r"scan\.h5: slices 0:1: a cone-beam scan measures its volume as a whole"):
        load_scan(path, slices=(0, 1))


def test_slices_are_still_written_as_before(tmp_path: Path, disc_volume: Callable[..., Volume]) -> None:
    scan = simulate_ct(disc_volume("CT"), views=4, size=16, generator=torch.Generator().manual_seed(0))
    with h5py.File(save_scan(scan, tmp_path / "scan.h5")) as h5:
        assert h5.attrs["version"] == 1 and h5["data"].chunks == (1, *scan.data.shape[1:])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"det_shape": (24, 40)}, r"geometry/det_shape: expected \[24, 48\] as in data, got \[24, 40\]"),
    ({"det_shape": 24}, "geometry/det_shape: expected two numbers, row and column"),
    ({"det_spacing": 5.0}, "geometry/det_spacing: expected two numbers, row and column, got 5.0"),
    ({"det_spacing": (5.0, -4.0)}, "geometry/det_spacing: expected mm > 0"),
    ({"det_offset": (0.0, float("nan"))}, "geometry/det_offset: expected two numbers"),
    ({"heights": (0.0,) * 7}, "geometry/heights: expected 60, one per view, got 7"),
    ({"heights": (math.inf,) * 60}, "geometry/heights: NaN or infinite"),
    ({"focal_shifts": ((0.0, 0.0),) * 60}, "geometry/focal_shifts: expected 60 of 3 numbers, .* got 60 of 2"),
    ({"detector": "curved"}, "geometry/detector: expected 'flat' or 'arc'"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:34] for _, message in BAD])
def test_bad_geometry_is_named(change: dict[str, Any], message: str) -> None:
    scan = measured("circle")
    with pytest.raises(ValueError, match=message):
        replace(scan, geometry=replace(scan.geometry, **change))


def test_bad_scans_are_named(tmp_path: Path) -> None:
    scan = measured("circle")
    for change, message in (
        ({"data": scan.data[0]}, "data: expected torch.float32 of rank 4"),
        ({"data": scan.data.expand(2, -1, -1, -1)}, r"data: expected \(1, V, R, D\)"),
        ({"image_shape": (32, 36)}, r"image_shape: expected \(Z, H, W\)"),
        ({"noise": CTNoise(torch.ones(60, 24))}, r"noise/i0: expected .* or \(1, 60, 24, 48\), .* got \(60, 24\)"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(scan, **change)
    spoilt = scan.data.clone()
    spoilt[0, 7, 3, 3] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite samples in view 7"):
        save_scan(replace(scan, data=spoilt), tmp_path / "scan.h5")
    for act in (lambda: scan.slices(2, 5), lambda: reconstruct(scan, "fbp", slices=(2, 5))):
        with pytest.raises(ValueError, match="slices 2:5: a cone-beam scan measures its volume as a whole"):
            act()
    for solver in ("resample", "dds"):
        with pytest.raises(ValueError, match=r"prior of slices .* do: asd-pocs, cgls, fbp, huber, sart, sirt, tv"):
            reconstruct(scan, solver)
    with pytest.raises(ValueError, match=r"helical.*iterative solver"):
        reconstruct(measured("helix"), "fbp")


def test_noise_of_projections() -> None:
    """One value per view reaches all of the view; unknown noise is found in the data."""
    p = measured("circle").data
    per_view = torch.linspace(1e4, 2e4, 60, dtype=torch.float64)
    for i0 in (per_view, per_view[None]):
        assert torch.equal(CTNoise(photons_by_view(i0, 4)).photons(p).expand(p.shape)[0, :, 3, 5], per_view)
    smooth = torch.linspace(0, 2, 300).expand(1, 5, 4, 300)
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(2))
    precision = CTNoise(model_absolute=0.0, model_relative=0.0).precision(noisy)
    assert float(precision.mean().rsqrt()) == pytest.approx(0.1, rel=0.05)


def test_progress_counts_slices() -> None:
    calls: list[tuple[float, int]] = []
    reconstruct(measured("helix"), "sirt", settings={"iterations": 4}, on_progress=lambda *c: calls.append(c))
    assert calls[-1] == (18, 18) and calls[0] == (4.5, 18)


FINE = VolumeGrid((18, 64, 72), (3.0, 1.5, 1.25))
"""GRID, twice as fine in the plane."""
FINE_AFFINE = AFFINE @ torch.tensor(
    [[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64
)


@pytest.fixture(scope="module")
def source() -> Volume:
    return Volume(mu_to_hu(BODY.volume(FINE) + BALL.volume(FINE)), FINE_AFFINE, "HU", "CT")


def simulated(source: Volume, kind: str, views: int, **options: Any) -> Scan:
    generator = torch.Generator().manual_seed(0)
    return simulate_ct(source, geometry=kind, views=views, generator=generator, **{"size": 32, **options})


@pytest.mark.parametrize(("kind", "solver", "chi2"), [("cone", "fbp", 6.0), ("helix", "tv", 1.5)])
def test_simulated_scans_come_back(source: Volume, kind: str, solver: str, chi2: float) -> None:
    """To the grid they were asked for, at the places of the source; from a finer grid than theirs."""
    scan = simulated(source, kind, 40)
    assert scan.image_shape == GRID.shape and scan.provenance["simulation_grid"] == [60, 64, 72]
    assert scan.provenance["inverse_crime"] is False and scan.provenance["trajectory"] == kind
    settings = {"iterations": 50} if solver == "tv" else {}
    volume, report = reconstruct(scan, solver, settings=settings)
    torch.testing.assert_close(volume.affine, AFFINE)
    assert water(volume) == pytest.approx(0, abs=5) and off(volume) < 0.6 and report["chi2"] < chi2
    low = reduce_dose(scan, 0.5, torch.Generator().manual_seed(1))
    assert low.data.shape == scan.data.shape and low.noise.i0 == scan.noise.i0 / 2


@pytest.mark.parametrize("kind", ["cone", "helix"])
def test_the_detector_sees_all_of_the_volume(source: Volume, kind: str) -> None:
    """Corners and middle, top and bottom: every view of a circle, half a turn and more of a helix."""
    scan = simulated(source.map(torch.zeros_like), kind, 16, i0=1e9, sigma_e=0.0)  # water up to the corners
    rays, p = scan.rays, scan.data[0]
    assert float(p[..., 0].abs().max()) < 1e-2 and float(p[..., -1].abs().max()) < 1e-2
    directions = np.stack([np.sin(rays.angles), -np.cos(rays.angles)], axis=1)
    for x, y, z in ((45, 48, 27), (-45, 48, -27), (45, -48, 0), (0, 0, 27), (0, 0, -27)):
        away = rays.source_origin - directions @ (x, y)
        height = (z - rays.source_heights()) * (rays.source_origin + rays.origin_detector) / away
        seen = np.flatnonzero(abs(height) <= rays.det_shape[0] / 2 * rays.det_spacing[0])
        assert len(seen) == len(p) if kind == "cone" else len(seen) >= 8 and np.ptp(seen) == len(seen) - 1
    if kind == "cone":  # above the volume there is nothing, across it 96 mm
        assert float(p[:, 0].abs().max()) < 1e-2 and float(p[:, -1].abs().max()) < 1e-2
        row, column = p.shape[1] // 2, p.shape[2] // 2
        assert float(p[0, row, column]) == pytest.approx(96 * MU_WATER, rel=0.01)


def test_matched_simulation_is_recorded(source: Volume) -> None:
    scan = simulated(source, "cone", 4, matched=True)
    assert scan.provenance["inverse_crime"] is True and scan.provenance["simulation_grid"] == [20, 32, 36]


@pytest.mark.parametrize("current", ["sinusoidal", "attenuation"])
def test_tube_current_of_a_cone(source: Volume, current: str) -> None:
    scan = simulated(source, "cone", 6, tube_current=current)
    assert scan.noise.i0.shape == (1, 6, 1, 1)
    assert float(scan.noise.i0.mean()) == pytest.approx(5e4)


def test_a_helix_takes_no_arc(source: Volume) -> None:
    with pytest.raises(ValueError, match="as many turns as the volume needs"):
        simulated(source, "helix", 4, arc=3.0)


def test_from_a_volume_to_a_volume_on_the_command_line(
    source: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, scan, out = (str(tmp_path / name) for name in ("ct.nii.gz", "scan.h5", "out.nii.gz"))
    formats.write(source, image)
    argv = ["simulate", image, "-o", scan, "--modality", "ct", "--geometry", "cone", "--views", "40", "--size", "32"]
    assert main(argv) == 0
    assert main(["info", scan, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["geometry"]["type"] == "cone" and said["image_shape"] == [18, 32, 36] and said["views"] == 40
    assert main(["recon", scan, "-o", out, "--solver", "fbp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["slices"] == [0, 18]
    volume = formats.read(out)
    grid = VolumeGrid(tuple(volume.data.shape), GRID.spacing)  # type: ignore[arg-type]
    assert water(volume, grid) == pytest.approx(0, abs=5) and off(volume) < 0.6
    assert main(["recon", scan, "-o", str(tmp_path / "x.nii"), "--solver", "fbp", "--slices", "2:4"]) == 2
    assert "take slices of the volume" in capsys.readouterr().err
    assert main(["recon", scan, "-o", str(tmp_path / "x.nii"), "--solver", "resample"]) == 2
    assert "these do: asd-pocs, cgls, fbp" in capsys.readouterr().err
    argv[argv.index("cone")], argv[argv.index(scan)] = "helix", str(tmp_path / "helix.h5")
    assert main([*argv, "--arc", "90"]) == 1
    assert "as many turns" in capsys.readouterr().err
