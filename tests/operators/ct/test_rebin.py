"""Rebinning of fan scans to parallel views against exact sinograms, and the arc geometry against its closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse, views

from medrecon.core.units import mu_to_hu
from medrecon.geometry import FanGeometry, Geometry, ImageGrid
from medrecon.operators.ct.filtered import rebin
from medrecon.operators.ct.filtered.fbp import fbp
from medrecon.operators.ct.filtered.rebin import fan_to_parallel

pytestmark = pytest.mark.usefixtures("one_thread")
WATER = Ellipse(40.0, -25.0, 70.0, 70.0)
ELLIPSE = Ellipse(20.0, 35.0, 90.0, 50.0, 0.5)
GRID = ImageGrid((128, 128), (3.125, 3.125))
FAN = FanGeometry(views(480), 300, 3.4, 600.0, 500.0)
# Moves the rays by half their distance at the centre, seen from the detector.
HALF = FAN.iso_spacing / 2 / (500.0 / 1100.0) / 600.0 / 2
TWO, FOUR = ((-HALF, 0.0), (HALF, 0.0)), ((-HALF, 0.0), (HALF, 0.0), (-HALF, 3.0), (HALF, 3.0))
SCANS = {
    "full": FAN,
    "quarter": replace(FAN, det_offset=0.85),
    "short": replace(FAN, angles=views(360, math.pi + 1.0, start=0.3)),
    "minimal": replace(FAN, angles=views(360, math.pi + 0.93)),
    "short quarter": replace(FAN, angles=views(360, -math.pi - 1.0), det_offset=0.85),
    "2.25 turns": replace(FAN, angles=views(900, 4.5 * math.pi, start=0.7)),
    "random order": replace(FAN, angles=tuple(np.random.default_rng(0).permutation(views(480)))),
    "random": replace(FAN, angles=tuple(np.random.default_rng(0).uniform(0, 2 * math.pi, 700))),
    "shifted detector": replace(FAN, det_count=200, det_offset=150.0),
    "focal spot": replace(FAN, angles=views(720), focal_shifts=TWO * 360),
    "4 focal spots": replace(FAN, angles=views(960), focal_shifts=FOUR * 240),
    "focal spot, short": replace(FAN, angles=views(560, math.pi + 1.0), focal_shifts=TWO * 280),
    "focal spot, quarter": replace(FAN, angles=views(720), focal_shifts=TWO * 360, det_offset=0.85),
}
both_detectors = pytest.mark.parametrize("detector", ["flat", "arc"])


def blob(geometry: Geometry, width: float = 15.0) -> torch.Tensor:
    """(V, D) exact line integrals of a Gaussian off the centre: smooth, so that interpolation shows its order."""
    point, along = geometry.rays()
    along = along / np.linalg.norm(along, axis=-1, keepdims=True)
    apart = point - np.array([60.0, 35.0])
    distance = apart[..., 0] * along[..., 1] - apart[..., 1] * along[..., 0]
    return torch.from_numpy(np.exp(-0.5 * (distance / width) ** 2)).float()


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


@both_detectors
@pytest.mark.parametrize("scan", SCANS)
def test_rebinned_scan_is_the_parallel_scan(scan: str, detector: str) -> None:
    geometry = replace(SCANS[scan], detector=detector)  # type: ignore[arg-type]
    sinogram, parallel = fan_to_parallel(torch.stack([blob(geometry), WATER.sinogram(geometry)]), geometry)
    assert error(sinogram[0], blob(parallel)) < (5e-3 if scan == "random" else 5e-4)
    assert error(sinogram[1], WATER.sinogram(parallel)) < 0.007  # 1.85 mm rays across an edge
    image = mu_to_hu(fbp(sinogram[1], parallel, GRID))[WATER.inside(GRID, 0.8)]
    assert abs(float(image.mean())) < 0.5 and float(image.std()) < 1.0


@both_detectors
@pytest.mark.parametrize("shifts", [(), TWO * 576])
def test_ellipse_at_the_sampling_of_a_scanner(shifts: tuple[tuple[float, float], ...], detector: str) -> None:
    geometry = FanGeometry(views(1152), 900, 1.13, 600.0, 500.0, 0.28, detector, shifts)  # type: ignore[arg-type]
    sinogram, parallel = fan_to_parallel(ELLIPSE.sinogram(geometry), geometry)
    assert error(sinogram, ELLIPSE.sinogram(parallel)) < 0.003


@both_detectors
@pytest.mark.parametrize("scan", ["focal spot", "4 focal spots", "focal spot, short"])
def test_fbp_takes_a_flying_focal_spot(scan: str, detector: str) -> None:
    geometry = replace(SCANS[scan], detector=detector)  # type: ignore[arg-type]
    image = mu_to_hu(fbp(WATER.sinogram(geometry), geometry, GRID))[WATER.inside(GRID, 0.8)]
    assert abs(float(image.mean())) < 0.5 and float(image.std()) < 1.0


@both_detectors
def test_interleaved_rays_raise_the_sampling(detector: str) -> None:
    """A blob narrower than two rays: the moved focal spot resolves what one position aliases."""
    still = replace(FAN, angles=views(720), detector=detector)  # type: ignore[arg-type]
    flying = replace(still, focal_shifts=TWO * 360)
    (a, once), (b, twice) = (fan_to_parallel(blob(g, 1.0), g, det_spacing=0.9) for g in (still, flying))
    assert error(b, blob(twice, 1.0)) < 0.3 * error(a, blob(once, 1.0))
    assert fan_to_parallel(blob(flying), flying)[1].det_spacing < 0.51 * still.iso_spacing


def test_ignored_focal_shifts_are_caught() -> None:
    """The control: read without its shifts, the scan is off by a quarter ray, and with the wrong sign by a half."""
    flying = replace(SCANS["focal spot"], detector="arc")
    backwards = replace(flying, focal_shifts=tuple((-a, r) for a, r in flying.focal_shifts))
    right, parallel = fan_to_parallel(blob(flying), flying)
    for wrong in (replace(flying, focal_shifts=()), backwards):
        found, there = fan_to_parallel(blob(flying), wrong, det_spacing=parallel.det_spacing)
        assert error(found, blob(there)) > 10 * error(right, blob(parallel))


@both_detectors
def test_wrong_sign_is_caught(monkeypatch: pytest.MonkeyPatch, detector: str) -> None:
    lines = rebin._lines
    monkeypatch.setattr(rebin, "_lines", lambda g, group: (-lines(g, group)[0], lines(g, group)[1]))
    geometry = replace(FAN, detector=detector)  # type: ignore[arg-type]
    sinogram, parallel = fan_to_parallel(WATER.sinogram(geometry), geometry)
    image = mu_to_hu(fbp(sinogram, parallel, GRID))[WATER.inside(GRID, 0.8)]
    assert error(sinogram, WATER.sinogram(parallel)) > 0.05 and abs(float(image.mean())) > 5


def test_lines_nobody_measured_are_zero() -> None:
    geometry = replace(FAN, angles=views(200, math.radians(100)))
    sinogram, parallel = fan_to_parallel(torch.ones(geometry.shape), geometry)
    measured = sinogram > 0.5
    assert torch.allclose(sinogram[measured], torch.ones(()), atol=1e-5) and sinogram[~measured].abs().max() < 1e-5
    assert 100 / 180 - 0.03 < float(measured[:, parallel.det_count // 2].float().mean()) < 100 / 180 + 0.03


def test_gradient_shape_and_options() -> None:
    geometry = FanGeometry(views(20), 31, 3.0, 100.0, 80.0, focal_shifts=((0.01, 0.0), (-0.01, 1.0)) * 10)
    y = torch.randn(2, 3, 20, 31, dtype=torch.float64, requires_grad=True)
    out, parallel = fan_to_parallel(y, geometry, views=17, det_spacing=2.0)
    assert out.shape == (2, 3, *parallel.shape) and parallel.det_spacing == 2.0 and len(parallel.angles) == 17
    assert torch.autograd.gradcheck(lambda s: fan_to_parallel(s, geometry)[0], (y[:1, :1],), fast_mode=True)
    many = torch.randn(11, 20, 31)
    assert torch.allclose(fan_to_parallel(many, geometry)[0][9], fan_to_parallel(many[9], geometry)[0], atol=1e-6)


def test_bad_input_is_named() -> None:
    jitter = tuple((0.001 * k, 0.0) for k in range(480))
    with pytest.raises(ValueError, match=r"480 different positions"):
        fan_to_parallel(torch.zeros(480, 300), replace(FAN, focal_shifts=jitter))
    with pytest.raises(ValueError, match=r"\(480, 300\).*\(300, 480\)"):
        fan_to_parallel(torch.zeros(300, 480), FAN)
    with pytest.raises(ValueError, match=r"1 different source angles"):
        fan_to_parallel(torch.zeros(4, 300), replace(FAN, angles=(0.0,) * 4))


@both_detectors
@pytest.mark.parametrize("offset", [0.0, 0.85])
def test_a_point_projects_where_trigonometry_says(detector: str, offset: float) -> None:
    """Independent of the geometry's code: the point's angle at the source, from the places of both."""
    geometry = FanGeometry(views(90, start=0.1), 1200, 0.6, 600.0, 500.0, offset, detector)  # type: ignore[arg-type]
    px, py = 60.0, 35.0  # of the blob
    sinogram = blob(geometry, 1.5).double()
    centre = (sinogram @ torch.arange(1200.0).double() / sinogram.sum(1)).numpy()
    t = np.array(geometry.angles)
    sx, sy = 600 * np.sin(t), -600 * np.cos(t)
    toward_point, toward_centre = np.arctan2(py - sy, px - sx), np.arctan2(-sy, -sx)
    gamma = np.mod(toward_centre - toward_point + math.pi, 2 * math.pi) - math.pi  # clockwise: along the detector axis
    length = 1100 * (gamma if detector == "arc" else np.tan(gamma))
    np.testing.assert_allclose(centre, (length - offset) / 0.6 + 599.5, atol=0.02)
    assert abs(centre - ((-length - offset) / 0.6 + 599.5)).max() > 50  # the mirror image would be seen
