"""Filtered backprojection in HU, against an off-centre water disc with an exact sinogram."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse, views

from medrecon.core.units import mu_to_hu
from medrecon.geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.operators.ct.filtered import ramp
from medrecon.operators.ct.filtered import weights as fbp_weights
from medrecon.operators.ct.filtered.backprojection import backproject
from medrecon.operators.ct.filtered.fbp import angular_weights, fbp, parker_weights, ray_weights
from medrecon.operators.ct.filtered.shifted import offset_weights
from medrecon.operators.ct.operator import CTOperator

pytestmark = pytest.mark.usefixtures("one_thread")
WATER = Ellipse(40.0, -25.0, 70.0, 70.0)
GRID = ImageGrid((128, 128), (3.125, 3.125))
FULL = FanGeometry(views(480), 300, 3.4, 600.0, 500.0, det_offset=0.85)
SHORT = FanGeometry(views(360, math.pi + 0.9, start=0.3), 300, 3.4, 600.0, 500.0)
FANS = {
    "full": FULL,
    "2 turns": FanGeometry(views(720, 4 * math.pi), 300, 3.4, 600.0, 500.0),
    "1.5 turns": FanGeometry(views(600, 3 * math.pi, start=0.123), 300, 3.4, 600.0, 500.0),
    "2.25 turns": FanGeometry(views(1000, 4.5 * math.pi, start=5.7), 300, 3.4, 600.0, 500.0),
    "2 turns of float32": FanGeometry(tuple(np.float32(views(720, 4 * math.pi, 0.1))), 300, 3.4, 600.0, 500.0),
    "Parker": SHORT,
    "Parker back": FanGeometry(views(360, -math.pi - 0.9), 300, 3.4, 600.0, 500.0),
    "a degree over the minimum": FanGeometry(views(360, math.pi + 0.94), 300, 3.4, 600.0, 500.0),
    "2 degrees under": FanGeometry(views(360, math.pi + 0.84), 300, 3.4, 600.0, 500.0),
    "330": FanGeometry(views(500, math.radians(330), start=5.0), 300, 3.4, 600.0, 500.0),
    "355": FanGeometry(views(500, math.radians(355), start=1.0), 300, 3.4, 600.0, 500.0),
    "random order": FanGeometry(tuple(np.random.default_rng(0).permutation(views(480))), 300, 3.4, 600.0, 500.0),
    "short, random order, doubles": FanGeometry(
        tuple(np.random.default_rng(0).permutation(SHORT.angles + SHORT.angles[::3])), 300, 3.4, 600.0, 500.0
    ),
    "random": FanGeometry(tuple(np.random.default_rng(1).uniform(0, 7, 700)), 300, 3.4, 600.0, 500.0),
    "shifted detector": FanGeometry(views(480), 200, 3.4, 600.0, 500.0, det_offset=150.0),
    "shifted back": FanGeometry(views(480), 201, 3.4, 600.0, 500.0, det_offset=-150.0),
}


def arc(geometry: FanGeometry) -> FanGeometry:
    return replace(geometry, detector="arc")


def water(geometry: Geometry, grid: ImageGrid = GRID) -> tuple[float, float]:
    """Mean and standard deviation in HU inside the disc, 0 and 0 if all is right."""
    image = mu_to_hu(fbp(WATER.sinogram(geometry), geometry, grid))
    inside = image[WATER.inside(grid, 0.8)]
    return float(inside.mean()), float(inside.std())


@pytest.mark.parametrize(
    "geometry",
    [
        ParallelGeometry(views(360, math.pi), 180, 3.125),
        ParallelGeometry(views(360, -math.pi, start=1.0), 181, 3.125, det_offset=0.78),
        ParallelGeometry(views(361), 180, 3.125),
        ParallelGeometry(views(540, 1.5 * math.pi, start=0.2), 180, 3.125),
        ParallelGeometry(views(480), 120, 3.125, det_offset=100.0),
    ],
    ids=["180", "-180", "360 odd", "270", "shifted detector"],
)
def test_water_is_zero_hu(geometry: Geometry) -> None:
    mean, std = water(geometry)
    assert abs(mean) < 0.5 and std < 1.0


@pytest.mark.parametrize("detector", ["flat", "arc"])
@pytest.mark.parametrize("scan", FANS)
def test_water_is_zero_hu_in_fans(scan: str, detector: str) -> None:
    mean, std = water(replace(FANS[scan], detector=detector))  # type: ignore[arg-type]
    assert abs(mean) < 0.5 and std < 1.0


def test_a_shifted_detector_needs_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fbp_weights, "offset_weights", np.ones_like)
    assert abs(water(FANS["shifted detector"])[0]) > 20


@pytest.mark.parametrize("lack", [3.0, 10.0, 30.0, 70.0])
def test_the_rim_that_one_side_alone_sees_is_right(lack: float) -> None:
    """A body that fills the long side, in the middle and at its edge: once 389 HU too low where 9 % was lacking."""
    body, count = Ellipse(0.0, 0.0, 97.0, 95.0), round((200 - lack) / 1.4)
    grid = ImageGrid((90, 90), (2.2, 2.2))
    for side in (-1, 1):
        geometry = ParallelGeometry(views(480), count, 1.4, det_offset=side * lack / 2)
        image = mu_to_hu(fbp(body.sinogram(geometry), geometry, grid))
        assert abs(float(image[body.inside(grid, 0.9)].mean())) < 1 and float(image[body.inside(grid, 0.9)].std()) < 1
        assert abs(float(image[body.inside(grid, 0.97) & ~body.inside(grid, 0.9)].mean())) < 10


def test_weights_of_a_shifted_detector_add_up_and_are_even_where_they_can_be() -> None:
    for count, offset in ((100, 5.0), (101, -20.0), (100, 40.0), (60, 0.5)):
        places = ParallelGeometry(views(9), count, 1.0, det_offset=offset).positions()
        weights = offset_weights(places)
        reverse = np.interp(-places, places, weights, left=0, right=0)
        np.testing.assert_allclose(weights + reverse, 2, atol=0.01)
    assert (offset_weights(ParallelGeometry(views(9), 60, 1.0, det_offset=0.25).positions()) == 1).all()


def test_each_detector_needs_its_own_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arc read as flat, and without the arc's factor in the ramp, which matters far from the centre."""
    assert abs(water_as(arc(FULL), FULL)) > 5
    wide = FanGeometry(views(720), 400, 3.0, 300.0, 300.0, detector="arc")
    far = Ellipse(150.0, 0.0, 25.0, 25.0)
    grid = ImageGrid((64, 64), (1.0, 1.0), center=(150.0, 0.0))
    right = fbp(far.sinogram(wide), wide, grid)[far.inside(grid, 0.8)]
    assert abs(float(mu_to_hu(right).mean())) < 0.5
    sinc = np.sinc
    monkeypatch.setattr(ramp.np, "sinc", lambda x: sinc(0 * x))
    wrong = fbp(far.sinogram(wide), wide, grid)[far.inside(grid, 0.8)]
    assert abs(float(mu_to_hu(wrong).mean())) > 1


def water_as(true: Geometry, assumed: Geometry) -> float:
    """Mean in HU inside the disc, of one geometry's data read as another's."""
    return float(mu_to_hu(fbp(WATER.sinogram(true), assumed, GRID))[WATER.inside(GRID, 0.8)].mean())


@pytest.mark.parametrize("detectors", [127, 128, 129, 255, 257])
def test_all_detector_sizes(detectors: int) -> None:
    """Odd and even, at and beside powers of two: a ramp with taps that are not integer is 70 times too large."""
    mean, std = water(ParallelGeometry(views(360, math.pi), detectors, 470.0 / detectors))
    assert abs(mean) < 0.5 and std < 1.0


def test_half_and_full_turn_agree() -> None:
    half = ParallelGeometry(views(180, math.pi), 180, 3.125)
    full = ParallelGeometry(views(360), 180, 3.125)
    a, b = (fbp(WATER.sinogram(g), g, GRID) for g in (half, full))
    assert float((a - b).norm() / b.norm()) < 1e-4


def test_pixels_not_square_and_off_centre() -> None:
    mean, std = water(FULL, ImageGrid((100, 140), (3.0, 2.0), center=(30.0, -20.0)))
    assert abs(mean) < 0.5 and std < 1.0


@pytest.mark.parametrize("short", [SHORT, arc(SHORT)], ids=["flat", "arc"])
def test_wrong_parker_sign_fails(monkeypatch: pytest.MonkeyPatch, short: FanGeometry) -> None:
    monkeypatch.setattr(fbp_weights, "parker_weights", lambda b, g, arc: parker_weights(b, -g, arc))
    mean, std = water(short)
    assert abs(mean) > 20 or std > 20


@pytest.mark.parametrize("short", [SHORT, arc(SHORT)], ids=["flat", "arc"])
def test_short_scan_without_parker_fails(monkeypatch: pytest.MonkeyPatch, short: FanGeometry) -> None:
    monkeypatch.setattr(fbp_weights, "parker_weights", lambda b, g, arc: 0 * b[:, None] * g + 1.0)
    assert abs(water(short)[0]) > 20


def test_parker_pairs_add_up_to_one() -> None:
    """The ray (beta, gamma) is also (beta + pi - 2 gamma, -gamma), for short, longer and too short arcs."""
    gamma = np.linspace(-0.41, 0.41, 41)
    for arc in (math.pi - 0.2, math.pi + 0.3, math.pi + 0.8, 5.5):
        for g in gamma:
            beta = np.linspace(0, arc, 200)
            partner = beta + math.pi - 2 * g
            once = parker_weights(beta, np.array([g]), arc)[:, 0]
            again = parker_weights(partner, np.array([-g]), arc)[:, 0]
            both = partner <= arc
            np.testing.assert_allclose((once + again)[both], 1.0, atol=1e-9)
            earlier = beta - math.pi - 2 * g >= 0
            np.testing.assert_allclose(once[~both & ~earlier], 1.0, atol=1e-9)


def test_limited_arc_sees_only_its_directions() -> None:
    """120 of 180 degrees: every ray of the arc counts in full, the rest counts as zero."""
    whole, part = views(180, math.pi), views(120, 2 * math.pi / 3)
    sinogram = WATER.sinogram(ParallelGeometry(whole, 180, 3.125))
    limited = fbp(sinogram[:120], ParallelGeometry(part, 180, 3.125), GRID)
    sinogram[120:] = 0
    assert torch.allclose(limited, fbp(sinogram, ParallelGeometry(whole, 180, 3.125), GRID), atol=1e-6)


@pytest.mark.parametrize("detector", ["flat", "arc"])
def test_limited_fan_arc_is_too_low(detector: str) -> None:
    """150 degrees: what was not measured counts as zero. As the docstring says, values are too low."""
    geometry = replace(FULL, angles=views(300, math.radians(150)), detector=detector)  # type: ignore[arg-type]
    assert -400 < water(geometry)[0] < -50


def test_angular_weights() -> None:
    uneven = np.array([0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8])
    weights, _, arc = angular_weights(uneven, math.pi)
    assert arc == math.pi and weights.sum() == pytest.approx(math.pi)
    assert weights[2] == pytest.approx((0.2 + 0.3) / 2)
    doubled = angular_weights(np.concatenate([uneven, uneven + math.pi]), math.pi)[0]
    np.testing.assert_allclose(doubled[:8] + doubled[8:], weights, atol=1e-9)
    weights, start, arc = angular_weights(6.0 + np.arange(50) * 0.02, 2 * math.pi)
    assert arc == pytest.approx(1.0) and start == pytest.approx(5.99) and weights == pytest.approx(0.02)
    assert angular_weights(np.array([0.7]), math.pi)[0] == pytest.approx(math.pi)


def test_views_of_random_angles() -> None:
    angles = tuple(np.sort(np.random.default_rng(1).uniform(0, math.pi, 500)))
    mean, std = water(ParallelGeometry(angles, 180, 3.125))
    assert abs(mean) < 5 and std < 10
    assert ray_weights(ParallelGeometry(angles, 180, 3.125))[:, 0].sum() == pytest.approx(math.pi)


def test_windows_keep_the_level_and_lower_the_noise(generator: torch.Generator) -> None:
    geometry = ParallelGeometry(views(180, math.pi), 180, 3.125)
    noise = 0.01 * torch.randn(180, 180, generator=generator)
    sizes = []
    for window in ("ramp", "shepp-logan", "cosine", "hann"):
        image = mu_to_hu(fbp(WATER.sinogram(geometry), geometry, GRID, window))  # type: ignore[arg-type]
        assert abs(float(image[WATER.inside(GRID, 0.8)].mean())) < 0.5
        sizes.append(float(fbp(noise, geometry, GRID, window).std()))  # type: ignore[arg-type]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    "geometry",
    [
        ParallelGeometry(views(20), 31, 2.0),
        FanGeometry(views(20), 31, 3.0, 100.0, 80.0),
        FanGeometry(views(20), 31, 3.0, 100.0, 80.0, detector="arc"),
        FanGeometry(views(20), 31, 3.0, 100.0, 80.0, detector="arc", focal_shifts=((0.01, 0.0), (-0.01, 1.0)) * 10),
    ],
    ids=["parallel", "flat", "arc", "focal spot"],
)
def test_batch_dtype_and_gradient(geometry: Geometry) -> None:
    A = CTOperator(geometry, ImageGrid((15, 17), (2.0, 2.5)))
    y = torch.randn(2, 3, *A.out_shape, dtype=torch.float64, requires_grad=True)
    image = A.fbp(y)
    assert image.shape == (2, 3, 15, 17) and image.dtype == torch.float64
    assert torch.allclose(image[1, 2], A.fbp(y[1, 2]))
    assert torch.autograd.gradcheck(A.fbp, (y[:1, :1],), fast_mode=True)
    assert A.fbp(y.detach().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize(
    "geometry",
    [ParallelGeometry(views(21), 40, 1.5), FULL.subset(range(0, 480, 40)), arc(FULL).subset(range(0, 480, 40))],
)
def test_compiled_loops_equal_torch(geometry: Geometry, batch: int, generator: torch.Generator) -> None:
    """Pixels beyond the detector too."""
    rays = torch.randn(batch, *geometry.shape, generator=generator)
    grid = ImageGrid((37, 29), (2.0, 3.0), center=(9.0, -4.0))
    compiled, by_torch = backproject(rays, geometry, grid), backproject(rays.double(), geometry, grid)
    torch.testing.assert_close(compiled.double(), by_torch, rtol=1e-4, atol=1e-4)


BITS = """
import hashlib, os, torch
from medrecon.geometry import *
from medrecon.operators.ct.operator import *
from medrecon.operators.ct.filtered.fbp import fbp
geometry = FanGeometry(tuple(k * 0.1 for k in range(63)), 71, 1.5, 60.0, 40.0, detector="arc")
y = torch.randn(3, 63, 71, generator=torch.Generator().manual_seed(0))
run = lambda: torch.cat([fbp(y, geometry, ImageGrid((41, 30), (1.0, 1.0))).flatten(),
                         fbp(y[:1], geometry, ImageGrid((41, 30), (1.0, 1.0))).flatten()])
image = run()
child = os.fork() if os.environ["NUMBA_NUM_THREADS"] == "1" else 0
if not child and os.environ["NUMBA_NUM_THREADS"] == "1":
    torch.set_num_threads(1)  # as a DataLoader's workers do: else torch.fft itself waits for ever
    os._exit(0 if torch.allclose(run(), image, rtol=1e-5, atol=1e-7) else 1)
assert not child or os.waitpid(child, 0)[1] == 0
print(hashlib.sha256(image.numpy().tobytes()).hexdigest())
"""


def test_same_bits_for_any_number_of_threads_and_runs_in_a_fork() -> None:
    digests = set()
    for count in ("1", "2"):
        env = {"NUMBA_NUM_THREADS": count, "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(p for p in sys.path if p)}
        done = subprocess.run(
            [sys.executable, "-c", BITS], capture_output=True, text=True, env=env, check=True, timeout=60
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_bad_input_is_named() -> None:
    geometry = ParallelGeometry(views(4), 9, 1.0)
    grid = ImageGrid((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"\(4, 9\).*\(9, 4\)"):
        fbp(torch.zeros(9, 4), geometry, grid)
    with pytest.raises(ValueError, match=r"hamming"):
        fbp(torch.zeros(4, 9), geometry, grid, "hamming")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"beyond the source.*units"):
        fbp(torch.zeros(4, 9), FanGeometry(views(4), 9, 1.0, 5.0, 5.0), grid)
    with pytest.raises(ValueError, match=r"CTOperator\.fbp"):
        CTOperator(geometry, grid).fbp(torch.zeros(9, 4))


@pytest.mark.parametrize(
    ("gaps", "step", "missing"),
    [
        ([0.1, 0.1, 0.1, 3.0], 0.1, [False, False, False, True]),
        ([0.1, 0.1, 0.45, 2.6], 0.275, [False, False, False, True]),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 2.1], 0.1, [False, False, False, False, False, True, True]),
        ([0.02, 0.02, 0.02, 0.02, 0.14, 2.9], 0.02, [False, False, False, False, False, True]),  # below 10 degrees
        ([1e-9, 0.3, 2.8], 1.55, [False, False, False]),  # two of three angles are one
        ([0.0, 3.1], 3.1, [False, False]),
    ],
)
def test_gaps_that_were_not_measured(gaps: list[float], step: float, missing: list[bool]) -> None:
    """Over four times the median and over 10 degrees; of one real gap nothing can be said."""
    found, marked = fbp_weights.unmeasured(np.array(gaps), math.pi)
    assert (round(found, 9), marked.tolist()) == (step, missing)
