"""--solver auto: every kind of scan finds its row, and a prior is not given images that it does not know."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.geometry import ConeGeometry, FanGeometry, ParallelGeometry, Rays, Trajectory
from medrecon.models.store import shipped
from medrecon.pipeline.auto import TABLE, choose, kind
from medrecon.pipeline.choose import solver_classes
from medrecon.sampling.radial import golden_angles, radial
from medrecon.sampling.spiral import spiral

HALF, TURN = math.pi, 2 * math.pi


def views(count: int, arc: float) -> tuple[float, ...]:
    return tuple(arc * k / count for k in range(count))


def ct(rays: Rays, side: int = 64, water: float | None = 0.02) -> Scan:
    shape = (4, side, side) if isinstance(rays, ConeGeometry) else (side, side)
    data = torch.zeros(1, *rays.shape)
    return Scan("ct", data, shape, torch.eye(4).double(), "1/mm" if water is None else "HU", rays, mu_water=water)


def fan(count: int, arc: float = TURN) -> FanGeometry:
    return FanGeometry(views(count, arc), 48, 2.0, 300.0, 300.0)


def mri(mask: Tensor, coils: int = 2) -> Scan:
    data = torch.ones(1, coils, *mask.shape, dtype=torch.complex64) * mask
    return Scan("mri", data, tuple(mask.shape), torch.eye(4).double(), "a.u.", mask=mask)


def lines(every: int, centre: int = 4, axis: int = 1) -> Tensor:
    k = torch.arange(64)
    taken = (k % every == 0) | ((k - 32).abs() < centre)
    mask = taken.expand(64, 64)
    return mask.clone() if axis == 1 else mask.T.clone()


def along(trajectory: Tensor) -> Scan:
    data = torch.ones(1, 2, len(trajectory), dtype=torch.complex64)
    return Scan("mri", data, (64, 64), torch.eye(4).double(), "a.u.", Trajectory(trajectory.float()))


PARTIAL = (torch.arange(64) >= 20).expand(64, 64).clone()
LATTICE = lines(2, axis=0) & lines(2)
SCATTERED = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) < 0.2
SCATTERED[30:35, 30:35] = True
SCANS = {
    "30 views": (ct(fan(30)), "ct sparse"),
    "20 views all around, seen twice": (ct(fan(20)), "ct sparse"),
    "30 views of a half turn": (ct(ParallelGeometry(views(30, HALF), 48, 2.0)), "ct sparse"),
    "golden angles": (ct(ParallelGeometry(tuple(k * 1.9416 for k in range(25)), 48, 2.0)), "ct sparse"),
    "200 views": (ct(fan(200)), "ct dense"),
    "90 degrees": (ct(fan(90, HALF / 2)), "ct limited"),
    "150 degrees": (ct(ParallelGeometry(views(60, 5 / 6 * HALF), 48, 2.0)), "ct limited"),
    "one view": (ct(fan(1)), "ct limited"),
    "no water": (ct(fan(30), water=None), "ct foreign"),
    "cone": (ct(ConeGeometry(views(30, TURN), (6, 48), (2.0, 2.0), 300.0, 300.0)), "ct volume"),
    "one coil": (mri(lines(4), coils=1), "mri single"),
    "partial": (mri(PARTIAL), "mri partial"),
    "all": (mri(torch.ones(64, 64, dtype=torch.bool)), "mri whole"),
    "lines": (mri(lines(4)), "mri lines"),
    "lines, the other axis": (mri(lines(4, axis=0)), "mri lines"),
    "partial, every third": (mri(PARTIAL & lines(3)), "mri lines"),
    "few lines": (mri(lines(12, 2)), "mri few lines"),
    "two axes": (mri(SCATTERED), "mri two axes"),
    "spokes": (along(radial(golden_angles(20), 128, (64, 64))), "mri spokes"),
    "spirals": (along(spiral((64, 64), 240.0, 6).trajectory), "mri curves"),
}


@pytest.mark.parametrize("name", SCANS)
def test_every_kind_of_scan_finds_its_row(name: str) -> None:
    scan, expected = SCANS[name]
    assert kind(scan) == expected


def test_every_row_is_of_a_scan_and_of_solvers_that_do_it() -> None:
    known = solver_classes()
    assert {expected for _, expected in SCANS.values()} == set(TABLE)
    for key, row in TABLE.items():
        modality = key.split()[0]
        assert modality in known[row.solver].modalities and modality in known[row.classical].modalities
        assert known[row.solver].needs_prior == (row.prior is not None) and not known[row.classical].needs_prior
        assert row.prior is None or (row.prior in shipped() and row.prior.startswith(modality))
        assert row.prior is not None or row.solver == row.classical
    assert len({row.case for row in TABLE.values()}) == len(TABLE)


def test_a_prior_is_not_given_images_of_another_size() -> None:
    scan, _ = SCANS["30 views"]
    small, fits = choose(scan), choose(replace(scan, image_shape=(200, 200)))
    assert (small.solver, small.prior) == ("huber", None) and "these have 64" in small.why
    assert (fits.solver, fits.prior) == ("resample", "ct") and "can show structures that are not there" in fits.why
    assert choose(replace(scan, image_shape=(600, 600))).prior is None
