"""FDK in HU: spheres with exact projections, full and short scans, flat and arc detectors, ends of the volume."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipsoid, views
from torch import Tensor

from medrecon.core.units import mu_to_hu
from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.numerics import threads
from medrecon.operators.ct.filtered import weights as fbp_weights
from medrecon.operators.ct.filtered.fbp import parker_weights
from medrecon.operators.ct.filtered.fdk import fdk

pytestmark = pytest.mark.usefixtures("one_thread")
WATER = Ellipsoid((25.0, -15.0, 0.0), (50.0, 50.0, 50.0))
GRID = VolumeGrid((5, 70, 74), (12.0, 2.7, 2.5))
FULL = ConeGeometry(views(360), (24, 200), (4.8, 2.4), 600.0, 400.0, det_offset=(0.7, 0.6))
SHORT = replace(FULL, angles=views(270, math.pi + 0.75, start=0.2))
UNEVEN = tuple(np.random.default_rng(0).permutation(2 * np.pi * np.linspace(0, 1, 400, endpoint=False) ** 1.2))


def water(geometry: ConeGeometry, grid: VolumeGrid = GRID, truth: Ellipsoid = WATER) -> list[tuple[float, float]]:
    """Mean and standard deviation in HU inside the sphere, slice by slice; 0 and 0 if all is right."""
    image = mu_to_hu(fdk(truth.sinogram(geometry), geometry, grid))
    inside = truth.inside(grid, 0.8)
    return [(float(a[b].mean()), float(a[b].std())) for a, b in zip(image, inside, strict=True) if b.sum() > 20]


@pytest.mark.parametrize("detector", ["flat", "arc"])
@pytest.mark.parametrize(
    "angles",
    [
        FULL.angles,
        SHORT.angles,
        views(270, -math.pi - 0.75),
        views(330, math.radians(330), start=5.0),
        views(700, 4 * math.pi),
        UNEVEN,
    ],
    ids=["full", "Parker", "Parker back", "330", "2 turns", "uneven, shuffled"],
)
def test_water_is_zero_hu_in_the_plane_of_the_source(angles: tuple[float, ...], detector: str) -> None:
    geometry = replace(FULL, angles=angles, detector=detector, det_shape=(4, 200))
    grid = VolumeGrid((1, *GRID.shape[1:]), GRID.spacing)
    ((mean, std),) = water(geometry, grid)
    assert abs(mean) < 0.5 and std < 1.0


@pytest.mark.parametrize("geometry", [FULL, SHORT, replace(FULL, detector="arc")], ids=["full", "short", "arc"])
def test_off_the_plane_feldkamps_artefact_is_small(geometry: ConeGeometry) -> None:
    """24 mm above the source's plane, 2.3 degrees, a sphere reads 1 to 3 HU low, on both sides alike."""
    below, low, middle, high, above = water(geometry)
    for (mean, std), (mirror, _) in ((below, above), (low, high)):
        assert -4 < mean < 0 and std < 1 and mean == pytest.approx(mirror, abs=0.3)
    assert above[0] < high[0] < middle[0] + 0.1


def test_a_sphere_off_the_plane_is_where_it_belongs() -> None:
    truth, grid = Ellipsoid((20.0, 30.0, 22.0), (14.0, 14.0, 14.0)), VolumeGrid((31, 60, 62), (2.0, 2.4, 2.4))
    image = fdk(truth.sinogram(FULL), FULL, grid)
    assert abs(float(mu_to_hu(image)[truth.inside(grid, 0.7)].mean())) < 10
    for axis in (0, 1, 2):
        assert float(image.flip(axis)[truth.inside(grid, 0.7)].abs().mean()) < 0.01 * truth.mu


def test_a_circle_at_another_height_and_other_voxels() -> None:
    up = 37.0
    truth = replace(WATER, center=(25.0, -15.0, up))
    geometry = replace(FULL, heights=(up,) * 360)
    once = water(FULL)
    moved = water(geometry, replace(GRID, center=(0.0, 0.0, up)), truth)
    np.testing.assert_allclose(once, moved, atol=0.02)
    finer = VolumeGrid((3, 110, 90), (6.0, 1.5, 2.0), center=(20.0, -10.0, up))
    assert all(abs(mean) < 1 and std < 1 for mean, std in water(geometry, finer, truth))


def test_lengths_are_mm() -> None:
    """All lengths twice and half the attenuation: the same projections, half the values."""
    large = replace(FULL, det_spacing=(9.6, 4.8), det_offset=(1.4, 1.2), source_origin=1200.0, origin_detector=800.0)
    y = WATER.sinogram(FULL)
    twice = fdk(y, large, VolumeGrid(GRID.shape, tuple(2 * d for d in GRID.spacing)))
    torch.testing.assert_close(2 * twice, fdk(y, FULL, GRID), rtol=1e-4, atol=1e-6)


def between(low: float, high: float, detector: str = "flat") -> ConeGeometry:
    """A full turn of which the detector sees from `low` to `high` mm at the axis."""
    count, scale = round((high - low) / 1.44), 1000 / 600
    offset = (0.0, (low + high) / 2 * scale)
    return replace(FULL, det_shape=(4, count), det_offset=offset, detector=detector)  # type: ignore[arg-type]


@pytest.mark.parametrize("detector", ["flat", "arc"])
@pytest.mark.parametrize("ends", [(-42, 85), (-85, 42), (-11, 101), (-101, 11), (-90, 101), (-99, 101)])
def test_a_detector_shifted_to_either_side_is_right(ends: tuple[float, float], detector: str) -> None:
    """A body that fills what the long side sees, and the air beside it: once up to 409 HU off."""
    geometry, reach = between(*ends, detector), max(map(abs, ends)) - 3
    grid = VolumeGrid((1, *GRID.shape[1:]), GRID.spacing)
    body = Ellipsoid((4.0, 0.0, 0.0), (reach - 6, reach - 25, 500.0))
    image = mu_to_hu(fdk(body.sinogram(geometry), geometry, grid))[0]
    inside = image[body.inside(grid, 0.94)[0]]
    assert abs(float(inside.mean())) < 1 and float(inside.std()) < 3
    seen = Ellipsoid((0.0, 0.0, 0.0), (reach,) * 3).inside(grid)[0]
    assert abs(float(image[seen & ~body.inside(grid, 1.1)[0]].mean()) + 1000) < 10


@pytest.mark.parametrize("ends", [(-2, 101), (1, 101), (-101, 4), (30, 60)])
def test_a_detector_that_hardly_passes_the_axis_is_refused(ends: tuple[float, float]) -> None:
    geometry = between(*ends)
    with pytest.raises(ValueError, match=r"from the axis, and 6 of them .* must lie beyond.*offset"):
        fdk(torch.zeros(geometry.shape), geometry, GRID)


def test_wrong_parker_sign_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fbp_weights, "parker_weights", lambda b, g, arc: parker_weights(b, -g, arc))
    mean, std = water(SHORT)[2]
    assert abs(mean) > 20 or std > 20


def test_short_scan_without_parker_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fbp_weights, "parker_weights", lambda b, g, arc: 0 * b[:, None] * g + 1.0)
    assert abs(water(SHORT)[2][0]) > 20


def test_arc_projections_taken_for_flat_fail() -> None:
    arc = replace(FULL, detector="arc", det_shape=(24, 160), det_spacing=(4.8, 4.8))
    image = mu_to_hu(fdk(WATER.sinogram(arc), replace(arc, detector="flat"), GRID))[2]
    inside = WATER.inside(GRID, 0.8)[2]
    assert abs(float(image[inside].mean())) > 2


def test_beyond_the_rows_the_nearest_one_counts_and_unseen_voxels_are_zero() -> None:
    """A long body on few rows: right to the last slice that any view sees, though most views miss its far side."""
    geometry = replace(FULL, angles=views(240), det_shape=(40, 180), det_spacing=(2.0, 2.6), det_offset=(0.0, 0.6))
    body, grid = Ellipsoid((20.0, -10.0, 0.0), (60.0, 50.0, 400.0)), VolumeGrid((17, 70, 70), (4.0, 2.5, 2.5))
    image = fdk(body.sinogram(geometry), geometry, grid)
    inside = body.inside(grid, 0.8)
    for height, plane, core in zip(grid.heights(), mu_to_hu(image), inside, strict=True):
        if abs(height) <= 24:  # at the axis the beam ends at 24 mm, less or more elsewhere
            assert abs(float(plane[core].mean())) < 0.5 and float(plane[core].std()) < 1
        elif abs(height) >= 30:
            assert float(plane.max()) == -1000


def test_windows_keep_the_level_and_lower_the_noise(generator: torch.Generator) -> None:
    geometry = replace(FULL, angles=views(180))
    noise, sizes = 0.01 * torch.randn(geometry.shape, generator=generator), []
    for window in ("ramp", "shepp-logan", "cosine", "hann"):
        image = mu_to_hu(fdk(WATER.sinogram(geometry), geometry, GRID, window))[2]  # type: ignore[arg-type]
        assert abs(float(image[WATER.inside(GRID, 0.7)[2]].mean())) < 0.5
        sizes.append(float(fdk(noise, geometry, GRID, window).std()))  # type: ignore[arg-type]
    assert sizes == sorted(sizes, reverse=True)


def case() -> tuple[ConeGeometry, VolumeGrid, Tensor]:
    geometry = ConeGeometry(views(9), (5, 11), (3.0, 3.0), 100.0, 80.0)
    y = torch.randn(2, 3, *geometry.shape, generator=torch.Generator().manual_seed(0))
    return geometry, VolumeGrid((4, 7, 6), (2.0, 2.5, 2.0)), y


def test_batch_and_dtype() -> None:
    geometry, grid, y = case()
    image = fdk(y, geometry, grid)
    assert image.shape == (2, 3, *grid.shape) and torch.equal(image[1, 2], fdk(y[1, 2], geometry, grid))
    assert fdk(y[:0], geometry, grid).shape == (0, 3, *grid.shape)
    assert fdk(y.bfloat16(), geometry, grid).dtype == torch.bfloat16
    strided = y.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.equal(fdk(strided, geometry, grid), image)


def test_double_precision_is_computed_as_such() -> None:
    """Linear to its last digits, which sums of single precision are not."""
    geometry, grid, y = case()
    a, b = y.double().unbind()
    image = fdk(a, geometry, grid)
    assert image.dtype == torch.float64
    torch.testing.assert_close(image + fdk(b / 3, geometry, grid), fdk(a + b / 3, geometry, grid), rtol=0, atol=1e-13)
    torch.testing.assert_close(image.float(), fdk(y[0], geometry, grid), rtol=1e-5, atol=1e-6)


def test_the_build_for_forked_processes_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, grid, y = case()
    parallel = fdk(y, geometry, grid)
    monkeypatch.setattr(threads, "forked", lambda: True)
    assert torch.equal(fdk(y, geometry, grid), parallel)


def test_bad_input_is_named() -> None:
    geometry, grid, y = case()
    helix = replace(geometry, heights=tuple(range(9)))
    with pytest.raises(ValueError, match=r"helical.*iterative.*rebin"):
        fdk(y, helix, grid)
    with pytest.raises(ValueError, match=r"flying focal spot.*iterative"):
        fdk(y, replace(geometry, focal_shifts=((0.0, 0.0, 1.0),) * 9), grid)
    with pytest.raises(ValueError, match=r"\(9, 5, 11\).*\(2, 3, 9, 11, 5\)"):
        fdk(y.mT, geometry, grid)
    with pytest.raises(ValueError, match=r"no gradient.*detach"):
        fdk(y.clone().requires_grad_(True), geometry, grid)
    with pytest.raises(ValueError, match="hamming"):
        fdk(y, geometry, grid, "hamming")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="check the units"):
        fdk(y, geometry, VolumeGrid((4, 100, 100), (2.0, 2.0, 2.0)))
