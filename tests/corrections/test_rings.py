"""Rings: elements of wrong gain and dead ones, on an analytic thorax; HU against the reconstruction without them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse, thorax, views

from medrecon.core.units import mu_to_hu
from medrecon.corrections.inpaint import interpolate_rays
from medrecon.corrections.rings import defective_elements, remove_rings, repair_elements
from medrecon.geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.operators.ct.filtered.fbp import fbp
from medrecon.simulate.rings import add_rings

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = ImageGrid((128, 128), (3.0, 3.0))
PARALLEL = ParallelGeometry(views(240, math.pi), 200, 2.0)
FAN = FanGeometry(views(300), 220, 3.4, 595.0, 490.6, det_offset=0.85)


def hu(p: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    return mu_to_hu(fbp(p, geometry, GRID))[Ellipse(0, 0, 185, 185).inside(GRID)]


def rmse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_rings_go_and_the_object_stays(geometry: Geometry, generator: torch.Generator) -> None:
    clean = thorax(geometry)
    truth = hu(clean, geometry)
    ringed = add_rings(clean, generator, gain=0.01)
    before, after = (rmse(hu(p, geometry), truth) for p in (ringed, remove_rings(ringed)))
    assert before > 8 and after < 0.5 * before
    untouched = hu(remove_rings(clean), geometry) - truth
    assert abs(float(untouched.mean())) < 0.1 and float(untouched.square().mean().sqrt()) < 2


def test_a_phantom_in_the_rotation_centre_keeps_its_edge(generator: torch.Generator) -> None:
    """Its edge meets the same element in every view; a smoothed mean over the views would take it for a ring."""
    clean = Ellipse(0, 0, 120, 120).sinogram(PARALLEL)
    ringed = add_rings(clean, generator, gain=0.01)
    truth = hu(clean, PARALLEL)
    assert rmse(hu(remove_rings(ringed), PARALLEL), truth) < 0.75 * rmse(hu(ringed, PARALLEL), truth)
    assert rmse(hu(remove_rings(clean), PARALLEL), truth) < 2


@pytest.mark.parametrize("height", [0.03, -0.08])
def test_one_element_far_off(height: float) -> None:
    clean = thorax(FAN)
    ringed = clean.clone()
    ringed[:, 90] += height
    assert float((remove_rings(ringed) - remove_rings(clean)).abs().max()) < 0.05 * abs(height)


def test_each_slice_by_itself_and_the_input_stays(generator: torch.Generator) -> None:
    clean = thorax(PARALLEL)
    batch = torch.stack([add_rings(clean, generator), add_rings(0.5 * clean, generator)]).reshape(2, 1, *clean.shape)
    before = batch.clone()
    together = remove_rings(batch)
    assert torch.equal(batch, before) and together.dtype == batch.dtype
    torch.testing.assert_close(together[1, 0], remove_rings(batch[1, 0]), rtol=0, atol=1e-6)
    assert not torch.allclose(together, batch, atol=1e-3)
    with pytest.raises(ValueError, match="5 detector elements"):
        remove_rings(torch.zeros(3, 4))


@pytest.mark.parametrize("dead", [(60, 61, 130), (0, 100, 101, 102), (199,)])
def test_dead_elements_are_found_and_filled(dead: tuple[int, ...], generator: torch.Generator) -> None:
    clean = thorax(PARALLEL)
    broken = add_rings(clean, generator, gain=0.0, dead=dead)
    found = defective_elements(broken)
    assert found.nonzero().flatten().tolist() == list(dead)
    assert not bool(defective_elements(clean).any())
    filled, precision = repair_elements(broken, found, torch.full((1, 200), 4.0))
    assert rmse(filled[:, found], clean[:, found]) < 0.1
    assert torch.equal(filled[:, ~found], broken[:, ~found])
    assert bool((precision[:, found] == 0).all() and (precision[:, ~found] == 4).all())
    assert rmse(hu(filled, PARALLEL), hu(clean, PARALLEL)) < 0.1 * rmse(hu(broken, PARALLEL), hu(clean, PARALLEL))


def test_interpolation_is_exact_on_lines_and_repeats_the_ends() -> None:
    p = torch.arange(10.0).expand(2, 3, 10) * torch.tensor([1.0, -2.0, 0.5])[:, None]
    missing = torch.zeros(3, 10, dtype=torch.bool)
    missing[:, 3:7] = True
    assert torch.allclose(interpolate_rays(torch.where(missing, 99.0, p), missing), p)
    ends = torch.tensor([True, True, False, False, False, False, False, False, True, True])
    filled = interpolate_rays(p, ends)
    assert torch.equal(filled[..., :2], p[..., 2:3].expand(2, 3, 2))
    assert torch.equal(filled[..., 8:], p[..., 7:8].expand(2, 3, 2))
    assert bool((interpolate_rays(p, torch.ones(10, dtype=torch.bool)) == 0).all())
    with pytest.raises(ValueError, match=r"\(7,\)"):
        interpolate_rays(p, torch.zeros(7, dtype=torch.bool))


def test_bad_input_is_named(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="gain"):
        add_rings(torch.zeros(3, 9), generator, gain=0.5)
    with pytest.raises(ValueError, match=r"0 \.\. 8"):
        add_rings(torch.zeros(3, 9), generator, dead=(9,))
    with pytest.raises(ValueError, match="9 detector elements"):
        defective_elements(torch.zeros(3, 8))
    with pytest.raises(ValueError, match="every"):
        repair_elements(torch.zeros(3, 9), torch.ones(9, dtype=torch.bool))


def test_rings_of_a_real_scan(corpus: Path) -> None:
    """A tooth in a synchrotron beam: means over circles lose their ripples, the tooth keeps its values."""
    import h5py

    with h5py.File(corpus / "raw" / "raw_ct_tooth" / "tooth.h5") as h5:
        counts, white, dark = (h5["exchange"][f"data{kind}"][:, 0] for kind in ("", "_white", "_dark"))
        angles = np.deg2rad(h5["exchange"]["theta"][:-1])
    dark = dark.mean(0)
    p = -torch.from_numpy((counts[:-1] - dark) / (white.mean(0) - dark)).clamp_min(1e-3).log()
    geometry, grid = ParallelGeometry(tuple(angles), 640, 1.0, det_offset=24.0), ImageGrid((400, 400), (1.0, 1.0))
    x, y = (torch.from_numpy(a) for a in grid.coordinates())
    radius = (x.square() + y[:, None].square()).sqrt().round().long().clamp_max(199)
    size = torch.bincount(radius.flatten())
    before, after = (fbp(q, geometry, grid) for q in (p, remove_rings(p)))
    ripples = []
    for image in (before, after):
        circles = torch.bincount(radius.flatten(), weights=image.flatten().double()) / size
        ripples.append(float(circles[5:190].diff(n=2).std()))
    assert ripples[1] < 0.4 * ripples[0]
    tooth = before > 0.5 * torch.quantile(before[::4, ::4], 0.99)
    assert float(after[tooth].mean() / before[tooth].mean()) == pytest.approx(1, abs=5e-3)
