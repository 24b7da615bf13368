"""Our Joseph projector: against ASTRA's, its own matrix, rays along the axes, any batch and any number of threads."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from ct_phantoms import views

from medrecon.geometry import FanGeometry, ImageGrid, ParallelGeometry
from medrecon.operators.check import adjoint_error
from medrecon.operators.ct.joseph import planar
from medrecon.operators.ct.operator import CTOperator

AXES = tuple(k * math.pi / 4 for k in range(8))
GRIDS = (ImageGrid((33, 41), (1.0, 1.0)), ImageGrid((40, 27), (0.8, 1.3), center=(2.5, -1.7)))
GEOMETRIES = (
    ParallelGeometry(views(23), 61, 0.9, det_offset=0.225),
    ParallelGeometry(AXES, 60, 1.0),
    FanGeometry(views(23), 70, 1.7, 60.0, 40.0, det_offset=-0.4),
    FanGeometry(AXES, 71, 1.5, 60.0, 40.0),
)
every_case = pytest.mark.parametrize("grid", GRIDS)


def smooth(grid: ImageGrid, batch: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand((batch, 1, 5, 5), generator=g)
    return torch.nn.functional.interpolate(coarse, grid.shape, mode="bicubic")[:, 0]


@every_case
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("batch", [1, 3, 16, 65])
def test_adjoint_is_exact_and_the_matrix_is_the_same_projector(geometry, grid, batch):
    A, B = (CTOperator(geometry, grid, backend, "linear") for backend in ("joseph", "matrix"))
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(batch, *A.in_shape, generator=g), torch.randn(batch, *A.out_shape, generator=g)
    ahead, back = A(x), A.adjoint(y)
    gap = (ahead.double() * y).sum() - (x.double() * back).sum()
    assert float(gap.abs() / ahead.norm() / y.norm()) < 1e-6
    torch.testing.assert_close(ahead, B(x), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(back, B.adjoint(y), rtol=1e-5, atol=1e-4)


def test_a_wrong_adjoint_is_caught():
    """The control: nearest-neighbour backprojection of the same rays fails the test above by orders of magnitude."""
    geometry, grid = GEOMETRIES[0], GRIDS[0]
    rays = planar.trace(geometry, grid)
    blunt = planar.Rays(rays.rows, np.round(rays.start), np.round(rays.slope), rays.length, rays.first, rays.last)
    g = np.random.default_rng(0)
    x = g.normal(size=(1, *grid.shape)).astype(np.float32)
    y = g.normal(size=(1, *rays.rows.shape)).astype(np.float32)
    ahead, back = planar.forward(x, rays), planar.adjoint(y, blunt, grid.shape)
    gap = abs(np.vdot(ahead, y) - np.vdot(x, back)) / np.linalg.norm(ahead) / np.linalg.norm(y)
    assert gap > 1e-4


@every_case
@pytest.mark.parametrize("geometry", GEOMETRIES[:2])
def test_equals_astra_on_parallel_rays(geometry, grid):
    ours, theirs = (CTOperator(geometry, grid, backend, "linear") for backend in ("joseph", "astra"))
    x = smooth(grid, 2)
    # At 45 degrees the axis to step along is a tie.
    assert float((ours(x) - theirs(x)).norm() / theirs(x).norm()) < 1e-3
    assert adjoint_error(ours) < 1e-6


@pytest.mark.parametrize("count", [4, 7, 60, 180, 181])
def test_rays_along_the_axes_miss_nothing(count):
    """cos(pi/2) is 6e-17: every view of a constant image integrates to the same mass."""
    grid = ImageGrid((32, 32), (1.0, 1.0))
    angles = tuple(k * math.pi / count for k in range(count))
    y = CTOperator(ParallelGeometry(angles, 64, 1.0), grid, "joseph", "linear")(torch.ones(32, 32))
    torch.testing.assert_close(y.sum(1), torch.full((count,), 1024.0), rtol=0.02, atol=0)


def test_an_image_beside_the_rays_gives_zero():
    grid = ImageGrid((8, 8), (1.0, 1.0), center=(500.0, 0.0))
    A = CTOperator(ParallelGeometry((math.pi, 0.0), 9, 1.0), grid, "joseph", "linear")
    assert float(A(torch.ones(8, 8)).abs().max()) == 0


THREADS = """
import torch, hashlib
from medrecon.geometry import *
from medrecon.operators.ct.operator import *
A = CTOperator(FanGeometry(tuple(k * 0.1 for k in range(60)), 71, 1.5, 60.0, 40.0), ImageGrid((70, 66), (1.0, 1.0)),
               "joseph", "linear")
x = torch.randn(5, 70, 66, generator=torch.Generator().manual_seed(0))
y = A(x)
print(hashlib.sha256(y.numpy().tobytes() + A.adjoint(y).numpy().tobytes()).hexdigest())
"""


def test_the_same_bits_for_any_number_of_threads():
    digests = set()
    for count in ("1", "2", "3"):
        env = {"NUMBA_NUM_THREADS": count, "PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""}
        done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, env=env, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


FORK = """
import math, os, threading, torch
from medrecon.geometry import *
from medrecon.operators.ct.operator import *
A = CTOperator(ParallelGeometry((0.0, 0.7, 1.9), 31, 1.0), ImageGrid((20, 22), (1.0, 1.0)), "joseph", "linear")
x = torch.randn(5, 20, 22, generator=torch.Generator().manual_seed(0))
y = A(x)
back = A.adjoint(y)
same = lambda: torch.equal(A(x), y) and torch.equal(A.adjoint(y), back)
results = []
threads = [threading.Thread(target=lambda: results.append(same())) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
assert results == [True] * 4
child = os.fork()
if child == 0:
    os._exit(0 if same() else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_threads_and_forks_project_the_same_bits():
    env = {"NUMBA_NUM_THREADS": "2", "PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
