"""A detector too short for the object: HU inside its field of view against a detector that sees all."""

import math
from dataclasses import replace

import pytest
import torch
from ct_phantoms import THORAX, Ellipse, views

from medrecon.core.noise import CTNoise
from medrecon.core.units import mu_to_hu
from medrecon.corrections.field_of_view import field_of_view_mask
from medrecon.corrections.truncation import pad_truncated
from medrecon.geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.operators.ct.filtered.fbp import fbp

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = ImageGrid((96, 96), (4.0, 4.0))
GEOMETRIES = {
    "parallel": ParallelGeometry(views(180, math.pi), 130, 2.0),
    "fan": FanGeometry(views(240), 150, 3.4, 595.0, 490.6, det_offset=0.85),
    "short scan": FanGeometry(views(240, math.pi + 0.6), 150, 3.4, 595.0, 490.6),
}
LARGE = (Ellipse(0.0, 0.0, 200.0, 150.0, 0.1), *THORAX[1:])


def sinogram(geometry: Geometry, body: tuple[Ellipse, ...]) -> torch.Tensor:
    return torch.stack([e.sinogram(geometry) for e in body]).sum(0)


def hu(p: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    return mu_to_hu(fbp(p, geometry, GRID))


@pytest.mark.parametrize("body", [THORAX, LARGE], ids=["a little", "much"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_padding_brings_the_hu_back(name: str, body: tuple[Ellipse, ...]) -> None:
    geometry = GEOMETRIES[name]
    whole = replace(geometry, det_count=geometry.det_count + 200)
    truth, inside = hu(sinogram(whole, body), whole), field_of_view_mask(geometry, GRID)
    p = sinogram(geometry, body)
    before = (hu(p, geometry) - truth)[inside]
    after = (hu(*pad_truncated(p, geometry)) - truth)[inside]
    assert float(before.square().mean().sqrt()) > 80
    assert float(after.square().mean().sqrt()) < 25 and abs(float(after.mean())) < 20


def test_it_stands_noise(generator: torch.Generator) -> None:
    geometry = GEOMETRIES["fan"]
    inside = field_of_view_mask(geometry, GRID)
    p = sinogram(geometry, THORAX)
    noisy = CTNoise(5e4, 10.0).simulate(p, generator)
    error = (hu(*pad_truncated(noisy, geometry)) - hu(noisy, geometry))[inside].mean()
    clean = (hu(*pad_truncated(p, geometry)) - hu(p, geometry))[inside].mean()
    assert float(error) == pytest.approx(float(clean), abs=5)


def test_nothing_is_added_where_nothing_is_cut() -> None:
    whole = ParallelGeometry(views(60, math.pi), 200, 2.0)
    p = sinogram(whole, THORAX)
    padded, wide = pad_truncated(p, whole, width=50.0)
    assert wide.det_count == 250 and padded.shape == (60, 250)
    assert torch.equal(padded[:, 25:-25], p)
    assert float(padded[:, :25].abs().max()) == 0 and float(padded[:, -25:].abs().max()) == 0


def test_batches_continuity_and_the_input() -> None:
    geometry = GEOMETRIES["fan"]
    p = torch.stack([sinogram(geometry, THORAX), sinogram(geometry, LARGE)])[:, None]
    before = p.clone()
    padded, wide = pad_truncated(p, geometry)
    assert torch.equal(p, before) and padded.shape == (2, 1, 240, 300) and wide.det_offset == geometry.det_offset
    assert torch.equal(padded[1, 0], pad_truncated(p[1, 0], geometry)[0])
    assert bool((padded >= 0).all()) and bool(padded.isfinite().all())
    true = sinogram(wide, THORAX)
    assert float((padded[0, 0] - true).norm()) < 0.4 * float((torch.nn.functional.pad(p[0, 0], (75, 75)) - true).norm())
    assert float(padded[..., 0].max()) < 0.7
    with pytest.raises(ValueError, match="240 views of 150"):
        pad_truncated(p.mT, geometry)
    with pytest.raises(ValueError, match="width"):
        pad_truncated(p, geometry, width=-1.0)
