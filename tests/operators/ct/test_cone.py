"""Cone-beam projector: exact adjoint, analytic ellipsoids, an independent matrix, the fan beam, threads and forks."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipsoid, views

from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.operators.check import adjoint_error, check_operator
from medrecon.operators.ct.joseph import cone, planar
from medrecon.operators.ct.operator import CTOperator

pytestmark = pytest.mark.usefixtures("one_thread")
AXES = tuple(k * math.pi / 4 for k in range(8))
WOBBLE = tuple((0.004 * (-1) ** k, 0.3 * (k % 3), 1.1 * (k % 2)) for k in range(8))
CIRCLE = ConeGeometry(AXES, (13, 29), (3.1, 2.7), 60.0, 40.0)
CASES = {
    "flat": CIRCLE,
    "flat, offset": replace(CIRCLE, angles=views(7, start=0.1), det_offset=(1.3, -0.7), det_shape=(12, 30)),
    "arc": replace(CIRCLE, detector="arc", det_shape=(14, 31)),
    "helix": ConeGeometry.helix(11, 2.5, 9.0, (9, 29), (3.0, 2.7), 60.0, 40.0),
    "helix down, flat": ConeGeometry.helix(8, 2.0, -14.0, (9, 28), (3.0, 2.7), 60.0, 40.0, detector="flat"),
    "flying focus": replace(CIRCLE, detector="arc", focal_shifts=WOBBLE),
    "steep": replace(CIRCLE, det_shape=(41, 9), det_spacing=(8.0, 6.0)),
}
GRIDS = {
    "odd": VolumeGrid((11, 17, 21), (1.7, 1.5, 1.5)),
    "off-centre": VolumeGrid((8, 20, 15), (2.3, 1.2, 1.9), center=(2.5, -1.7, 3.1)),
}
every_case = pytest.mark.parametrize("geometry", CASES.values(), ids=CASES)
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def projector(geometry: ConeGeometry, grid: VolumeGrid) -> CTOperator:
    return CTOperator(geometry, grid, "joseph")


@every_case
@every_grid
def test_adjoint_is_exact(geometry: ConeGeometry, grid: VolumeGrid) -> None:
    A = projector(geometry, grid)
    assert adjoint_error(A, batch=1) < 1e-6 and adjoint_error(A, batch=3, seed=1) < 1e-6


@pytest.mark.parametrize("name", ["flat", "helix", "flying focus"])
def test_laws(name: str) -> None:
    check_operator(projector(CASES[name], GRIDS["odd"]))


def test_a_wrong_adjoint_is_caught() -> None:
    """Controls: an adjoint 0.1 % too large, and one that takes the nearest voxel of the plane."""
    A = projector(CIRCLE, GRIDS["odd"])
    good = A._adjoint
    A._adjoint = lambda y: 1.001 * good(y)  # type: ignore[method-assign]
    assert adjoint_error(A) > 1e-5
    rays = cone.trace(CIRCLE, GRIDS["odd"])
    plane = rays.plane
    blunt = replace(rays, plane=replace(plane, start=np.round(plane.start), slope=np.round(plane.slope)))
    A._adjoint = lambda y: torch.from_numpy(cone.adjoint(y.numpy(), blunt, GRIDS["odd"].shape))  # type: ignore[method-assign]
    assert adjoint_error(A) > 1e-3


def reference(geometry: ConeGeometry, grid: VolumeGrid) -> np.ndarray:
    """(V * R * D, Z * H * W): Joseph ray by ray and plane by plane, in mm and float64."""
    sources, elements = geometry.plane().sources(), geometry.plane().elements()
    rows, matrix = geometry.row_heights(), np.zeros((*geometry.shape, *grid.shape))
    x, y = grid.plane().coordinates()
    z, pitch = grid.heights(), np.array([grid.spacing[2], grid.spacing[1], grid.spacing[0]])
    for v, r, d in np.ndindex(geometry.shape):
        source = np.array([*sources[v], geometry.source_heights()[v]])
        way = np.array([*elements[v, d], rows[v, r]]) - source
        along_x = abs(way[0]) / pitch[0] > abs(way[1]) / pitch[1]
        main = 0 if along_x else 1
        length = np.linalg.norm(way) / abs(way[main]) * pitch[main]
        for n, plane in enumerate(x if along_x else y):
            spot = source + way * (plane - source[main]) / way[main]
            in_z = np.maximum(0, 1 - abs(z - spot[2]) / pitch[2])
            if along_x:
                matrix[v, r, d, :, :, n] += length * in_z[:, None] * np.maximum(0, 1 - abs(y - spot[1]) / pitch[1])
            else:
                matrix[v, r, d, :, n, :] += length * in_z[:, None] * np.maximum(0, 1 - abs(x - spot[0]) / pitch[0])
    return matrix.reshape(math.prod(geometry.shape), -1)


@pytest.mark.parametrize("name", ["flat, offset", "helix", "flying focus", "steep"])
def test_equals_an_independent_matrix(name: str) -> None:
    few = range(0, len(CASES[name].angles), 3)
    geometry = replace(CASES[name].subset(few), det_shape=(7, 9), det_spacing=(6.0, 8.5))
    grid = VolumeGrid((5, 7, 9), (3.1, 3.3, 2.9), center=(1.0, -2.0, 1.5))
    # The voxels are not square: no ray ties between the axes.
    dense, A = reference(geometry, grid), projector(geometry, grid)
    basis = torch.eye(dense.shape[1]).reshape(-1, *grid.shape)
    np.testing.assert_allclose(A(basis).reshape(dense.shape[1], -1).numpy().T, dense, atol=2e-5)
    basis = torch.eye(dense.shape[0]).reshape(-1, *geometry.shape)
    np.testing.assert_allclose(A.adjoint(basis).reshape(dense.shape[0], -1).numpy(), dense, atol=2e-5)


def error(geometry: ConeGeometry, grid: VolumeGrid, truth: Ellipsoid) -> float:
    """Relative error of the projections of an ellipsoid's voxels."""
    exact = truth.sinogram(geometry)
    return float((projector(geometry, grid)(truth.volume(grid)) - exact).norm() / exact.norm())


BODY = Ellipsoid((8.0, -6.0, 4.0), (36.0, 28.0, 32.0))
SCANS = {
    "flat": ConeGeometry(views(24), (40, 60), (4.0, 4.0), 200.0, 150.0, det_offset=(3.0, 1.0)),
    "arc": ConeGeometry(views(24), (40, 60), (4.0, 4.0), 200.0, 150.0, detector="arc"),
    "helix": ConeGeometry.helix(24, 3.0, 25.0, (16, 60), (4.0, 4.0), 200.0, 150.0),
    "flying focus": ConeGeometry(
        AXES,
        (40, 60),
        (4.0, 4.0),
        200.0,
        150.0,
        detector="arc",
        focal_shifts=tuple((10 * a, r, z) for a, r, z in WOBBLE),
    ),
    "steep": ConeGeometry(views(24), (64, 40), (12.0, 6.0), 80.0, 80.0),
}


@pytest.mark.parametrize("geometry", SCANS.values(), ids=SCANS)
def test_ellipsoids_in_closed_form(geometry: ConeGeometry) -> None:
    coarse, fine = (error(geometry, VolumeGrid((n - 3, n, n + 2), (96 / n,) * 3), BODY) for n in (32, 64))
    assert fine < 0.022 and fine < 0.6 * coarse  # the fan beam's error at this size is 0.013


@pytest.mark.parametrize("axis", [-2, -1])
def test_flips_are_caught(axis: int) -> None:
    geometry, grid = SCANS["arc"], VolumeGrid((33, 33, 33), (3.0,) * 3)
    exact, volume, A = BODY.sinogram(geometry), BODY.volume(grid), projector(geometry, grid)
    assert float((A(volume).flip(axis) - exact).norm() / exact.norm()) > 0.3
    for flipped in (volume.flip(0), volume.flip(1), volume.flip(2)):
        assert float((A(flipped) - exact).norm() / exact.norm()) > 0.3


def test_one_row_in_the_plane_of_the_source_is_the_fan_beam() -> None:
    for geometry in (replace(CIRCLE, det_shape=(1, 29)), replace(CASES["arc"], det_shape=(1, 29))):
        grid = VolumeGrid((3, 17, 21), (1.0, 1.5, 1.3), center=(1.0, 0.5, 0.0))
        x = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
        ours = cone.forward(x, cone.trace(geometry, grid))
        plane = planar.forward(x[:, 1], planar.trace(geometry.plane(), grid.plane()))
        np.testing.assert_allclose(ours[:, :, 0], plane, rtol=1e-5, atol=1e-5)


def test_lengths_are_mm() -> None:
    """Twice all lengths: twice the integrals. Half the voxels: the same integrals."""
    geometry, grid = SCANS["flat"], VolumeGrid((32, 32, 32), (3.0,) * 3)
    volume = BODY.volume(grid)
    twice = replace(geometry, det_spacing=(8.0, 8.0), det_offset=(6.0, 2.0), source_origin=400.0, origin_detector=300.0)
    large = projector(twice, VolumeGrid(grid.shape, (6.0,) * 3))(volume)
    once = projector(geometry, grid)(volume)
    torch.testing.assert_close(large, 2 * once, rtol=1e-4, atol=1e-4)
    half = VolumeGrid((64, 64, 64), (1.5,) * 3)
    finer = projector(geometry, half)(BODY.volume(half))
    assert float((finer - once).norm() / once.norm()) < 0.03


def test_a_volume_beside_the_rays_gives_zero() -> None:
    geometry = replace(CIRCLE, heights=(500.0,) * 8)
    A = projector(geometry, GRIDS["odd"])
    assert float(A(torch.ones(A.in_shape)).abs().max()) == 0 and float(A.adjoint(torch.ones(A.out_shape)).max()) == 0


def test_a_subset_of_views_is_those_views() -> None:
    geometry, grid, some = CASES["helix"], GRIDS["off-centre"], [20, 3, 11]
    x = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    A = projector(geometry, grid)
    whole = A(x)
    assert torch.equal(A.subset(some)(x), whole[some])  # shares the traced rays
    assert torch.equal(projector(geometry.subset(some), grid)(x), whole[some])


def test_bad_geometry_is_named() -> None:
    with pytest.raises(ValueError, match=r"reaches .* beyond the source at 60.0 mm"):
        cone.trace(CIRCLE, VolumeGrid((4, 90, 90), (1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match=r"heights: expected 8, one per view, got 1"):
        replace(CIRCLE, heights=(1.0,))


THREADS = """
import hashlib, torch, numpy as np
from medrecon.operators.ct.joseph import cone
from medrecon.geometry import *
from medrecon.operators.ct.filtered.fdk import fdk
helix = ConeGeometry.helix(30, 2.0, 12.0, (9, 41), (3.0, 2.7), 60.0, 40.0)
grid = VolumeGrid((11, 37, 33), (1.7, 0.9, 1.0))
rays = cone.trace(helix, grid)
y = cone.forward(np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32), rays)
circle = ConeGeometry(helix.angles[:30], (9, 41), (3.0, 2.7), 60.0, 40.0)
parts = (y, cone.adjoint(y, rays, grid.shape), fdk(torch.from_numpy(y[:, :30]), circle, grid).numpy())
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def test_the_same_bits_for_any_number_of_threads() -> None:
    digests = set()
    for count in ("1", "2", "3"):
        env = {"NUMBA_NUM_THREADS": count, "PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""}
        done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, env=env, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


FORK = """
import os, threading, numpy as np
from medrecon.operators.ct.joseph import cone
from medrecon.geometry import *
geometry = ConeGeometry((0.0, 0.7, 1.9), (5, 21), (3.0, 2.7), 60.0, 40.0)
rays = cone.trace(geometry, VolumeGrid((4, 11, 12), (1.7, 0.9, 1.0)))
x = np.random.default_rng(0).normal(size=(1, 4, 11, 12)).astype(np.float32)
y = cone.forward(x, rays)
back = cone.adjoint(y, rays, (4, 11, 12))
same = lambda: (cone.forward(x, rays) == y).all() and (cone.adjoint(y, rays, (4, 11, 12)) == back).all()
results = []
threads = [threading.Thread(target=lambda: results.append(same())) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
assert results == [True] * 4
child = os.fork()
if child == 0:
    os._exit(0 if same() else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_runs_in_threads_and_forked_processes() -> None:
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", FORK], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
