"""Metal: HU errors outside it on a phantom with known truth; NMAR beats linear interpolation, which beats nothing."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from ct_phantoms import THORAX, Ellipse, views

from medrecon.core.noise import CTNoise
from medrecon.core.units import mu_to_hu
from medrecon.corrections.beam_hardening import water_precorrection
from medrecon.corrections.metal import metal_trace, reduce_metal, smooth
from medrecon.geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.numerics.spectrum import Spectrum
from medrecon.operators.ct.operator import CTOperator
from medrecon.simulate.metal import metal_scan

pytestmark = pytest.mark.usefixtures("one_thread")
FINE, GRID = ImageGrid((192, 192), (2.0, 2.0)), ImageGrid((96, 96), (4.0, 4.0))
PARALLEL = ParallelGeometry(views(150, math.pi), 160, 2.5)
FAN = FanGeometry(views(200), 160, 4.25, 595.0, 490.6)
SPECTRUM, NOISE = Spectrum(), CTNoise(5e5, 20.0)
CASES = {
    "two titanium pins": (PARALLEL, (Ellipse(-60.0, -20.0, 10.0, 10.0), Ellipse(70.0, -30.0, 10.0, 10.0)), "titanium"),
    "iron in the spine": (FAN, (Ellipse(0.0, -70.0, 8.0, 8.0),), "iron"),
}


operator = cache(CTOperator)  # a matrix each


def scan(geometry: Geometry, inserts: tuple[Ellipse, ...], material: str, generator: torch.Generator) -> torch.Tensor:
    mu = torch.stack([e.image(FINE) for e in THORAX]).sum(0)
    metal = torch.stack([replace(e, mu=1.0).image(FINE) for e in inserts]).sum(0)
    y = metal_scan(operator(geometry, FINE), mu, metal, SPECTRUM, NOISE, generator, material)
    return water_precorrection(y, SPECTRUM)


def error(image: torch.Tensor, inserts: tuple[Ellipse, ...]) -> float:
    """RMSE [HU] in the body, away from the metal."""
    truth = mu_to_hu(torch.stack([e.image(GRID) for e in THORAX]).sum(0))
    near = torch.stack([e.inside(GRID, 2.0) for e in inserts]).any(0)
    outside = Ellipse(0.0, 0.0, 160.0, 130.0).inside(GRID) & ~near
    return float((mu_to_hu(image) - truth)[outside].square().mean().sqrt())


@pytest.mark.parametrize("case", CASES)
def test_nmar_beats_interpolation_beats_nothing(case: str, generator: torch.Generator) -> None:
    geometry, inserts, material = CASES[case]
    y = scan(geometry, inserts, material, generator)
    A = operator(geometry, GRID)
    before = y.clone()
    nothing = error(A.fbp(y), inserts)
    li, nmar = (reduce_metal(A, y, method) for method in ("li", "nmar"))  # type: ignore[arg-type]
    assert torch.equal(y, before)
    assert error(nmar.image, inserts) < 0.8 * error(li.image, inserts) < 0.7 * nothing
    for result in (li, nmar):
        assert torch.equal(result.data[~result.trace], y[~result.trace])
        assert float(mu_to_hu(result.image)[result.metal].min()) > 2500
    share = sum(math.pi * e.a * e.b for e in inserts) / 16.0
    assert int(nmar.metal.sum()) == pytest.approx(share, rel=0.5)


def test_without_metal_nothing_changes(generator: torch.Generator) -> None:
    """In a batch only the slice with metal does."""
    geometry, inserts, material = CASES["iron in the spine"]
    y = scan(geometry, inserts, material, generator)
    plain = torch.stack([e.sinogram(geometry) for e in THORAX]).sum(0)
    A = operator(geometry, GRID)
    both = reduce_metal(A, torch.stack([y, plain])[:, None])
    assert not bool(both.trace[1].any()) and torch.equal(both.data[1, 0], plain)
    torch.testing.assert_close(both.data[0, 0], reduce_metal(A, y).data, rtol=1e-4, atol=1e-4)


def test_the_trace_covers_every_ray_through_metal() -> None:
    pin = Ellipse(40.0, 20.0, 9.0, 6.0, 0.4)
    A = operator(FAN, GRID)
    trace = metal_trace(A, pin.inside(GRID))
    chord = replace(pin, mu=1.0).sinogram(FAN)
    assert bool(trace[chord > 0].all()) and float(trace.float().mean()) < 0.1


def test_starved_rays_are_finite(generator: torch.Generator) -> None:
    geometry, inserts, _ = CASES["iron in the spine"]
    thick = tuple(replace(e, a=30.0, b=30.0) for e in inserts)
    y = scan(geometry, thick, "iron", generator)
    result = reduce_metal(operator(geometry, GRID), y)
    assert bool(y.isfinite().all() and result.image.isfinite().all())


def test_smoothing_keeps_the_level_and_its_width() -> None:
    point = torch.zeros(1, 41, 41)
    point[0, 20, 20] = 1.0
    blurred = smooth(point, (1.0, 2.0), sigma=3.0)
    x = torch.arange(41.0) - 20
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-4)
    assert float((blurred.sum(2) * x.square()).sum()) == pytest.approx(9.0, rel=0.03)  # sigma 3 pixels of 1 mm
    assert float((blurred.sum(1) * x.square()).sum()) == pytest.approx(2.25, rel=0.05)  # 1.5 pixels of 2 mm
    assert torch.allclose(smooth(torch.ones(9, 7), (1.0, 1.0)), torch.ones(9, 7))


def test_bad_input_is_named(generator: torch.Generator) -> None:
    A = operator(PARALLEL, GRID)
    with pytest.raises(ValueError, match="'spline'"):
        reduce_metal(A, torch.zeros(A.out_shape), "spline")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="share"):
        metal_scan(A, torch.zeros(128, 128), torch.full((128, 128), 2.0), SPECTRUM, NOISE, generator)
