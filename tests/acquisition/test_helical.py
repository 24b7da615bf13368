"""Single-slice rebinning of helical scans, against exact line integrals of the slice itself, and in HU."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cone_phantoms import BALL, CYLINDER, project
from scipy.ndimage import map_coordinates
from torch import Tensor

from medrecon.acquisition.helical import fan_geometry, reach, rebin, rebin_counted
from medrecon.core.units import mu_to_hu
from medrecon.geometry import ConeGeometry, FanGeometry, ImageGrid, ParallelGeometry
from medrecon.operators.ct.filtered.fbp import fbp

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHTS = [-6.0 + 2 * i for i in range(10)]
GRID = ImageGrid((80, 80), (2.0, 2.0))
HELIX = ConeGeometry.helix(180.7, 2.2, 14.0, (16, 120), (2.2, 3.0), 400.0, 350.0, start=0.4, det_offset=(0.3, 0.75))


def flying(geometry: ConeGeometry) -> ConeGeometry:
    """The focal spot in turn at two places, as a scanner that flies it along z and (by its slanted anode) outwards."""
    shifts = [(0.006, 5.0, -0.9) if i % 2 else (-0.004, 0.0, 0.0) for i in range(len(geometry.angles))]
    return replace(geometry, focal_shifts=tuple(shifts))


def doubled(geometry: ConeGeometry) -> ConeGeometry:
    return ConeGeometry.helix(
        361.4,
        2.2,
        14.0,
        geometry.det_shape,
        geometry.det_spacing,
        400.0,
        350.0,
        start=0.4,
        detector=geometry.detector,
        det_offset=geometry.det_offset,
    )


def slice_of(fan: FanGeometry, *phantom: object) -> Tensor:
    """(N, D) line integrals within z = 0."""
    flat = ConeGeometry(
        fan.angles,
        (1, fan.det_count),
        (1.0, fan.det_spacing),
        fan.source_origin,
        fan.origin_detector,
        (),
        (0.0, fan.det_offset),
        fan.detector,
    )
    return project(flat, phantom)[:, 0]  # type: ignore[arg-type]


def image(sinogram: Tensor, fan: FanGeometry) -> Tensor:
    """HU of fan-beam slices, by interpolation to parallel rays."""
    step = GRID.spacing[0] / 1.5
    parallel = ParallelGeometry(tuple(np.arange(180) * math.pi / 180), 2 * int(75 / step) + 1, step)
    gamma = np.arcsin(parallel.positions() / fan.source_origin)
    view = (np.array(parallel.angles)[:, None] + gamma - fan.angles[0]) / (2 * math.pi) * len(fan.angles)
    u = gamma * fan.source_detector if fan.detector == "arc" else np.tan(gamma) * fan.source_detector
    column = np.broadcast_to((u - fan.det_offset) / fan.det_spacing + (fan.det_count - 1) / 2, view.shape)
    place = [view % len(fan.angles) + 1, column]
    turned = [map_coordinates(np.pad(s.numpy(), ((1, 1), (0, 0)), "wrap"), place, order=1) for s in sinogram]
    return mu_to_hu(fbp(torch.from_numpy(np.stack(turned)).float(), parallel, GRID), 0.02)


def deviation(data: Tensor, geometry: ConeGeometry, fan: FanGeometry) -> tuple[float, float]:
    """|HU of water|, and how far the ball's centre is from its place [mm]."""
    images = image(rebin(data, geometry, HEIGHTS, fan), fan)
    weight = (images - 300).clamp_min(0) * (images > 500)
    x, y = (torch.from_numpy(c) for c in GRID.coordinates())
    z = torch.tensor(HEIGHTS)[:, None, None]
    centre = [float((weight * c).sum() / weight.sum()) for c in (x, y[:, None], z)]
    water = images[0, 34:46, 28:40]  # away from the ball
    return abs(float(water.mean())), max(abs(a - b) for a, b in zip(centre, BALL.centre, strict=True))


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("detector", ["arc", "flat"])
def test_a_long_cylinder_gives_the_slice_itself(detector: str) -> None:
    """Where nothing changes with z the rebinned rays are exact but for interpolation."""
    geometry = replace(HELIX, detector=detector)
    fan = fan_geometry(geometry)
    truth, data = slice_of(fan, CYLINDER), project(geometry, (CYLINDER,))
    for z in (-4.2, 0.0, 3.3):
        assert error(rebin(data, geometry, [z])[0], truth) < 0.008
    assert error(rebin(data, replace(geometry, det_offset=(0.3, -0.75)), [0.0])[0], truth) > 0.02


@pytest.mark.parametrize("detector", ["arc", "flat"])
def test_flying_focal_spot(detector: str) -> None:
    geometry = flying(doubled(replace(HELIX, detector=detector)))
    fan = fan_geometry(geometry)
    assert len(fan.angles) == 181  # the views of one of the two places
    truth, data = slice_of(fan, CYLINDER), project(geometry, (CYLINDER,))
    assert error(rebin(data, geometry, [0.0], fan)[0], truth) < 0.008
    assert error(rebin(data, replace(geometry, focal_shifts=()), [0.0], fan)[0], truth) > 0.016


@pytest.mark.parametrize("flies", [False, True])
@pytest.mark.parametrize("sense", [1, -1])
def test_values_and_places(flies: bool, sense: int) -> None:
    """HU of water, and x, y, z of a ball; turning either way along the table."""
    geometry = flying(doubled(HELIX)) if flies else HELIX
    geometry = replace(geometry, angles=tuple(sense * a for a in geometry.angles))
    water, place = deviation(project(geometry), geometry, fan_geometry(geometry))
    assert water < 1 and place < 0.15


def test_wrong_signs_fail() -> None:
    """Any of these would fail the test above."""
    geometry = flying(doubled(HELIX))
    data, fan, shifts = project(geometry), fan_geometry(geometry), np.array(geometry.focal_shifts)
    for what, wrong in {
        "columns": (data.flip(2), geometry),
        "rows": (data.flip(1), geometry),
        "rotation": (data, replace(geometry, angles=tuple(-a for a in geometry.angles))),
        "table": (data, replace(geometry, heights=tuple(-z for z in geometry.heights))),
        "focal spot ignored": (data, replace(geometry, focal_shifts=())),
        "focal spot": (data, replace(geometry, focal_shifts=tuple(map(tuple, -shifts)))),
    }.items():
        water, place = deviation(*wrong, fan)
        assert water > 2 or place > 0.3, what


def test_reach() -> None:
    """Half a turn and the fan angle must lie about a slice; a table that outruns the detector reaches none."""
    low, high = reach(HELIX)
    assert -15.4 < low < -7 and 7 < high < 15.4
    data = torch.zeros(HELIX.shape)
    rebin(data, HELIX, [low, high])
    with pytest.raises(ValueError, match=r"z = 15 mm.*from -\d+\.\d+ to \d+\.\d+ mm"):
        rebin(data, HELIX, [0.0, 15.0])
    fast = ConeGeometry.helix(180, 3, 40.0, (16, 120), (2.2, 3.0), 400.0, 350.0)
    with pytest.raises(ValueError, match=r"moves 40\.00 mm a turn, the detector covers 18\.77 mm"):
        reach(fast)


def test_pitch_above_one_uses_opposite_rays() -> None:
    """The table outruns the detector's height by a third: rays of one direction alone would leave gaps."""
    geometry = ConeGeometry.helix(180, 3, 25.0, (16, 120), (2.2, 3.0), 400.0, 350.0)
    fan = fan_geometry(geometry)
    found = rebin(project(geometry, (CYLINDER,)), geometry, [1.0], fan)[0]
    assert error(found, slice_of(fan, CYLINDER)) < 0.008


def test_photons_tell_the_noise(generator: torch.Generator) -> None:
    """The scatter of rebinned Poisson data is what the photons returned say, one number a ray."""
    geometry = ConeGeometry.helix(60, 2.2, 14.0, (16, 30), (2.2, 12.0), 400.0, 350.0)
    fan, truth = fan_geometry(geometry), project(geometry, (CYLINDER,)).double()
    photons = torch.linspace(2e3, 2e4, len(geometry.angles))[:, None] * torch.linspace(0.5, 1, 30)
    draws = []
    for _ in range(200):
        counts = torch.poisson(photons[:, None] * torch.exp(-truth), generator=generator)
        draws.append(rebin(-torch.log(counts.clamp_min(1) / photons[:, None]), geometry, [0.5], fan)[0])
    mean, worth = rebin_counted(truth, photons, geometry, [0.5], fan)
    ratio = torch.stack(draws).var(0) * worth[0] * torch.exp(-mean[0])
    edges = torch.stack([mean[0].roll(1, 1) - mean[0], mean[0].roll(-1, 1) - mean[0]]).abs().amax(0) > 0.2
    smooth = ratio[:, 1:-1][~edges[:, 1:-1]]  # where the eight samples of a ray do not differ much
    assert 0.95 < float(smooth.mean()) < 1.05
    assert float(((smooth > 0.6) & (smooth < 1.5)).float().mean()) > 0.98
    other = rebin_counted(truth, photons * 4, geometry, [0.5], fan)[1]
    assert torch.allclose(other, 4 * worth)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"geometry has .*the data \(3, 16, 120\)"):
        rebin(torch.zeros(3, 16, 120), HELIX, [0.0])
    with pytest.raises(ValueError, match="table does not move"):
        reach(replace(HELIX, heights=()))
    shifts = np.random.default_rng(0).normal(size=(len(HELIX.angles), 3))
    with pytest.raises(ValueError, match="does not come back"):
        reach(replace(HELIX, focal_shifts=tuple(map(tuple, shifts))))
    jumpy = tuple(a if i != 50 else a - 1 for i, a in enumerate(HELIX.angles))
    with pytest.raises(ValueError, match="rise or fall"):
        rebin(torch.zeros(HELIX.shape), replace(HELIX, angles=jumpy), [0.0])
