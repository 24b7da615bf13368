"""Line integrals and counts handed over: closed forms of discs, which any wrong axis, angle or length contradicts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from medrecon import evaluate, from_sinogram, reconstruct
from medrecon.core.noise import CTNoise
from medrecon.geometry import ConeGeometry, FanGeometry, ParallelGeometry
from medrecon.geometry.grid import ImageGrid

pytestmark = pytest.mark.usefixtures("one_thread")
untyped: Callable[..., Any] = from_sinogram
DISCS = ((0.0, 0.0, 26.0, 0.02), (10.0, 12.0, 7.0, 0.01))
"""x, y, radius [mm], attenuation [1/mm]"""
VIEWS = np.arange(72) * np.pi / 72
PARALLEL = ParallelGeometry(tuple(VIEWS), 72, 1.0)
FAN = FanGeometry(tuple(2 * VIEWS), 72, 2.0, 150.0, 150.0)


def lines(geometry: ParallelGeometry | FanGeometry, scale: float = 1.0) -> np.ndarray:
    """(V, D) through the discs, from the rays themselves."""
    points, directions = geometry.rays()
    normal = np.stack([-directions[..., 1], directions[..., 0]], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    total = np.zeros(geometry.shape)
    for x, y, radius, mu in DISCS:
        off = ((points - np.array([x, y]) * scale) * normal).sum(-1)
        total += 2 * mu * np.sqrt(np.clip((radius * scale) ** 2 - off**2, 0, None))
    return total


def truth(grid: ImageGrid) -> np.ndarray:
    x, y = grid.coordinates()
    return np.sum([mu * ((x - a) ** 2 + (y[:, None] - b) ** 2 < r * r) for a, b, r, mu in DISCS], axis=0)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_the_image_is_the_phantom_in_1_over_mm_and_in_hu(geometry: ParallelGeometry | FanGeometry) -> None:
    p = lines(geometry)
    scan = from_sinogram(torch.from_numpy(np.stack([p, 0.5 * p])), geometry, image_shape=72, spacing=1.0)
    volume, _ = reconstruct(scan, "fbp")
    wanted = truth(ImageGrid((72, 72), (1.0, 1.0)))
    assert volume.units == "1/mm" and volume.spacing == (1, 1, 1)
    for z, factor in enumerate((1.0, 0.5)):
        assert np.sqrt(np.mean((volume.numpy()[z] - factor * wanted) ** 2)) < 0.002
    hu, _ = reconstruct(dataclasses.replace(scan, units="HU", mu_water=0.02), "fbp")
    given, _ = reconstruct(from_sinogram(p, geometry, image_shape=72, spacing=1.0, mu_water=0.02), "fbp")
    assert given.units == "HU" and np.array_equal(given.numpy()[0], hu.numpy()[0])
    assert abs(given.numpy()[0, 40:50, 40:50].mean()) < 10
    assert evaluate(given, given.like(1000 * (wanted / 0.02 - 1)))["rmse"] < 100


def test_counts_of_any_gain_and_their_fields() -> None:
    """Noiseless counts give the line integrals back, a dead element between its neighbours."""
    p = np.stack([lines(PARALLEL), lines(PARALLEL)])
    flat, dark = np.linspace(900, 1100, 72) * np.array([[1.0], [2.0]]), np.full(72, 30.0)
    counts = dark + (flat[:, None] - dark) * np.exp(-p)
    scan = from_sinogram(counts, PARALLEL, flat=flat, dark=dark, i0=np.full(72, 5e3), sigma_e=3.0)
    np.testing.assert_allclose(scan.data, p, atol=1e-5)
    assert isinstance(scan.noise, CTNoise) and scan.noise.sigma_e == 3 and isinstance(scan.noise.i0, torch.Tensor)
    assert scan.noise.i0.shape == (1, 72, 1)
    assert from_sinogram(np.exp(-p) * 1e4, PARALLEL, flat=1e4, i0=1e4).noise is not None
    cone = ConeGeometry(tuple(2 * VIEWS), (3, 72), (2.0, 2.0), 150.0, 150.0)
    stack = np.stack([lines(FAN)] * 3, 1) * np.array([[1.0], [2.0], [3.0]])
    field = np.array([[1e3], [2e3], [3e3]]) + np.zeros(72)
    volume = from_sinogram(field * np.exp(-stack), cone, flat=field)
    np.testing.assert_allclose(volume.data[0], stack, atol=1e-5)
    assert volume.image_shape == (3, 72, 72) and volume.affine[2].tolist() == [0, 0, 1, -1]


def test_a_pixel_that_is_not_said_spreads_the_detector_over_the_image() -> None:
    for geometry, shape, pixel in ((PARALLEL, None, 1.0), (PARALLEL, 36, 2.0), (FAN, (72, 48), 1.0)):
        scan = from_sinogram(lines(geometry), geometry, image_shape=shape, consistent=False)
        assert scan.grid.spacing == pytest.approx((pixel, pixel))
    assert from_sinogram(lines(PARALLEL), PARALLEL, spacing=0.5).image_shape == (144, 144)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_views_and_elements_exchanged(geometry: ParallelGeometry | FanGeometry) -> None:
    p = lines(geometry)
    with pytest.raises(ValueError, match=r"sinogram: its sums change .* sinogram.T brings it there"):
        from_sinogram(p.T, geometry)
    from_sinogram(p.T, geometry, consistent=False)
    with pytest.raises(ValueError, match=r"expected \(view, element\) = \(40, 72\).*exchanged.*sinogram.T"):
        from_sinogram(p[:40].T, geometry.subset(range(40)))
    stack = np.stack([p[:40]] * 5, 1)
    with pytest.raises(ValueError, match=r"got \(40, 5, 72\); another order of axes\? numpy.moveaxis"):
        from_sinogram(stack, geometry.subset(range(40)))
    assert from_sinogram(np.moveaxis(stack, 1, 0), geometry.subset(range(40))).data.shape == (5, 40, 72)


def noisy(p: np.ndarray, photons: float = 2e4) -> np.ndarray:
    return -np.log(np.random.default_rng(0).poisson(photons * np.exp(-p)).clip(1) / photons)


@pytest.mark.parametrize("p", [lines(PARALLEL), noisy(lines(PARALLEL))], ids=["exact", "noisy"])
def test_angles_that_are_not_those_of_the_views(p: np.ndarray) -> None:
    from_sinogram(p, PARALLEL)
    order = np.random.default_rng(1).permutation(72)
    from_sinogram(p[order], dataclasses.replace(PARALLEL, angles=tuple(VIEWS[order])))
    for angles in (VIEWS[order], 2 * VIEWS, np.roll(VIEWS, 20)):
        with pytest.raises(ValueError, match="geometry: the centre and the width of the object's shadow"):
            from_sinogram(p, dataclasses.replace(PARALLEL, angles=tuple(angles)))
    with pytest.raises(ValueError, match="look like degrees"):
        from_sinogram(p, dataclasses.replace(PARALLEL, angles=tuple(np.arange(72.0) * 2.5)))


def test_an_axis_beside_its_place_is_found() -> None:
    beside = dataclasses.replace(PARALLEL, det_offset=2.5)
    p = lines(beside)
    from_sinogram(p, beside)
    with pytest.raises(ValueError, match=r"axis of rotation is -2.5 mm beside .*det_offset=2.5;"):
        from_sinogram(p, PARALLEL)
    with pytest.raises(ValueError, match=r"axis of rotation is 5\.?0* mm beside .*det_offset=2.5;"):
        from_sinogram(p, dataclasses.replace(PARALLEL, det_offset=7.5))


def test_an_object_beside_the_image(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"spacing: rays beside the image of 72 x 72 pixels of 0.3 mm see"):
        from_sinogram(lines(PARALLEL), PARALLEL, image_shape=72, spacing=0.3)
    with pytest.raises(ValueError, match="spacing: rays beside the image"):
        from_sinogram(lines(FAN), FAN, image_shape=72, spacing=0.3)
    assert not caplog.records
    from_sinogram(lines(PARALLEL), PARALLEL, image_shape=72, spacing=0.5)
    assert "of the object, which is left out" in caplog.text


P = lines(PARALLEL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"geometry": "parallel"}, "geometry: expected ParallelGeometry, FanGeometry or ConeGeometry"),
        ({"sinogram": P + 0j}, "sinogram: expected real numbers"),
        ({"sinogram": np.where(P == P.max(), np.inf, P)}, "sinogram: 1 NaN or infinite .* zero counts before the log"),
        ({"sinogram": 1e5 * np.exp(-P)}, "sinogram: slice 0: values .* are they counts.* give flat with the counts"),
        ({"sinogram": np.exp(-P)}, "sinogram: slice 0: .* transmissions, not line integrals"),
        ({"sinogram": -P}, "sinogram: slice 0: the mean line integral is -"),
        ({"sinogram": P[None, None]}, r"sinogram: expected \(view, element\) = \(72, 72\)"),
        ({"sinogram": np.zeros((0, 72, 72))}, "sinogram: no slices"),
        ({"flat": np.ones(5)}, r"flat: expected a number, \(72,\) or \(1, 72\)"),
        ({"flat": 0.0}, "flat field: no brighter than the dark field"),
        ({"dark": 5.0}, "dark: only with flat"),
        ({"sigma_e": 5.0}, "sigma_e: only with i0"),
        ({"i0": -1.0}, "noise/i0: expected a positive number"),
        ({"i0": np.ones(5)}, "noise/i0: expected a number"),
        ({"mu_water": 0.0}, "noise/mu_water: expected 1/mm > 0"),
        ({"mu_water": 19.2e3}, "noise/mu_water: expected 1/mm > 0"),
        ({"spacing": -1.0}, "spacing: expected mm > 0"),
        ({"spacing": (1.0, 2.0)}, "spacing: expected mm, one number"),
        ({"image_shape": (3, 72, 72)}, r"image_shape: expected \(rows, columns\)"),
        ({"image_shape": 7.5}, r"image_shape: expected \(rows, columns\)"),
        ({"slice_spacing": 0}, "slice_spacing: expected mm > 0"),
    ],
)
def test_errors_name_the_argument(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        untyped(**{"sinogram": P, "geometry": PARALLEL, **given})


def test_skimage_as_the_guide_says() -> None:
    """radon() has (element, view), pixels for mm, and turns the other way."""
    from skimage.transform import radon

    grid = ImageGrid((72, 72), (1.0, 1.0))
    degrees = np.degrees(VIEWS)
    sinogram = radon(truth(grid), degrees, circle=True)
    geometry = ParallelGeometry(np.radians(degrees), 72, 1.0, det_offset=-0.5)
    volume, _ = reconstruct(from_sinogram(sinogram.T, geometry, image_shape=72, spacing=1.0), "fbp")
    error = np.sqrt(np.mean((volume.numpy()[0] - truth(grid)) ** 2))
    assert error < 0.003
