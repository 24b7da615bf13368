"""Field of view, body mask and couch removal: a synthetic patient on a couch, and real slices."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse, views

from medrecon.corrections.field_of_view import body_mask, field_of_view_mask, field_of_view_radius, remove_couch
from medrecon.geometry import FanGeometry, ImageGrid, ParallelGeometry
from medrecon.operators.ct.operator import CTOperator

GRID = ImageGrid((256, 256), (1.8, 1.8))
BODY = (Ellipse(0.0, 20.0, 130.0, 90.0), Ellipse(-175.0, 0.0, 30.0, 35.0), Ellipse(175.0, 0.0, 30.0, 35.0))


def patient(gap: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """HU (3, 256, 256) of body with lungs and two arms over a curved couch, and the truth of the body."""
    body = torch.stack([e.inside(GRID) for e in BODY]).any(0)
    hu = torch.where(body, 40.0, -1000.0)
    for x in (-55.0, 55.0):
        hu[Ellipse(x, 20.0, 35.0, 55.0).inside(GRID)] = -850.0
    below = 70.0 + gap
    upper = Ellipse(0.0, 400.0 - below, 500.0, 400.0)  # a shell of 4 mm, foam below it, and another shell
    shell = upper.inside(GRID, 1.01) & ~upper.inside(GRID) & ~body
    lower = Ellipse(0.0, 400.0 - below - 40, 500.0, 400.0)
    shell |= lower.inside(GRID, 1.01) & ~lower.inside(GRID)
    hu[lower.inside(GRID) & ~upper.inside(GRID, 1.01)] = -920.0
    hu[shell] = -100.0
    hu[Ellipse(-60.0, 118.0, 40.0, 3.0).inside(GRID)] = 100.0  # a cable
    return hu.expand(3, 256, 256).clone(), body.expand(3, 256, 256)


@pytest.mark.parametrize("gap", [0.0, 8.0], ids=["touching", "apart"])
def test_the_couch_goes_and_the_body_stays(gap: float) -> None:
    hu, truth = patient(gap)
    before = hu.clone()
    mask = body_mask(hu, GRID.spacing)
    assert torch.equal(hu, before)
    overlap = (mask & truth).sum() / (mask | truth).sum()
    assert float(overlap) > 0.99
    assert bool(mask[:, Ellipse(-55.0, 20.0, 30.0, 50.0).inside(GRID)].all())  # lungs are filled
    assert bool(mask[:, Ellipse(175.0, 0.0, 20.0, 25.0).inside(GRID)].all())  # arms are kept
    bare = remove_couch(hu, GRID.spacing)
    assert bool((bare[~mask] == -1000).all()) and torch.equal(bare[mask], hu[mask])


def test_one_slice_empty_slices_and_padding() -> None:
    hu, truth = patient()
    assert torch.equal(body_mask(hu[0], GRID.spacing), body_mask(hu[:1], GRID.spacing)[0])
    hu[1] = -1000.0
    mask = body_mask(hu, GRID.spacing)
    assert not bool(mask[1].any()) and bool(mask[0].any())
    assert not bool(body_mask(torch.full((2, 20, 20), -3024.0), (1.0, 1.0)).any())
    padded = torch.where(Ellipse(0, 0, 220, 220).inside(GRID), hu, -2000.0)
    assert torch.equal(body_mask(padded, GRID.spacing)[0], mask[0])


def test_real_slices(corpus: Path) -> None:
    """Chest and abdomen on their couches: the body is one to six tenths of the image, and its edge is skin in air."""
    from PIL import Image

    for path in sorted((corpus / "val" / "ct_256").glob("ct_tcga_luad*.png")):
        hu = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32) - 1024).reshape(-1, 256, 256)
        mask = body_mask(hu, (1.6, 1.6))
        assert bool(((mask.float().mean((1, 2)) > 0.1) & (mask.float().mean((1, 2)) < 0.65)).all()), path.name
        assert float((hu[mask] > -400).float().mean()) > 0.55, path.name


@pytest.mark.parametrize(
    "geometry",
    [
        ParallelGeometry(views(30, math.pi), 101, 2.0),
        ParallelGeometry(views(30, math.pi), 101, 2.0, det_offset=5.0),
        FanGeometry(views(40), 100, 3.4, 595.0, 490.6),
        FanGeometry(views(40), 100, 3.4, 595.0, 490.6, det_offset=-8.0),
    ],
    ids=["parallel", "parallel offset", "fan", "fan offset"],
)
def test_what_every_view_sees(geometry: ParallelGeometry | FanGeometry) -> None:
    """A small disc just inside the radius is whole in every view; one just outside is cut in some."""
    radius = field_of_view_radius(geometry)
    if geometry.det_offset == 0 and isinstance(geometry, ParallelGeometry):
        assert radius == pytest.approx(100.0)
    missing = []
    for distance in (radius - 4, radius + 4):
        cut = False
        for turn in np.arange(0, 2 * math.pi, 0.3):
            p = Ellipse(distance * math.cos(turn), distance * math.sin(turn), 4.0, 4.0).sinogram(geometry)
            cut |= bool((p[:, [0, -1]] > 0.0192 * 1.5).any() or (p.amax(1) < 0.0192 * 6).any())
        missing.append(cut)
    assert missing == [False, True]
    grid = ImageGrid((60, 60), (5.0, 5.0))
    mask = field_of_view_mask(geometry, grid)
    assert float(mask.sum()) * 25 == pytest.approx(math.pi * radius**2, rel=0.05)
    rays = CTOperator(geometry, grid)(mask.float())
    assert float(rays.max()) == pytest.approx(2 * radius, rel=0.1)


def test_a_detector_beside_the_centre_sees_no_disc() -> None:
    assert field_of_view_radius(ParallelGeometry((0.0, 1.0), 11, 1.0, det_offset=20.0)) == 0.0


@pytest.mark.parametrize("padded", [False, True], ids=["edge of the image", "padding"])
def test_a_lung_cut_open_is_body(padded: bool) -> None:
    hu, truth = patient()
    seen = torch.zeros(256, 256, dtype=torch.bool)
    seen[:, 83:] = True  # through the left lung
    hu = torch.where(seen, hu, -2000.0) if padded else hu[..., 83:]
    truth = truth & seen if padded else truth[..., 83:]
    mask = body_mask(hu, GRID.spacing)
    assert float((mask & truth).sum() / (mask | truth).sum()) > 0.99
