"""Dynamic series: frames stay apart; locally low rank against dense algebra, its own minimum and other solvers."""

import functools
import math

import pytest
import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.core.measurement import Measurement
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.series import Series
from medrecon.pipeline import solver_class
from medrecon.sampling.lines import random_mask
from medrecon.solvers.base import Solution
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.mri.llr import LLR, Blocks, clip_singular_values, nuclear_norm
from medrecon.solvers.variational.tv import TV

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES, SIZE, SIGMA = 16, 48, 0.02


def heart(frames: int = FRAMES, n: int = SIZE) -> Tensor:
    """A beating ring, a disc that moves and discs at rest (T, H, W), pixels averaged over 4 x 4 points."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 4 * n)] * 2, indexing="ij")
    images = []
    for t in range(frames):
        beat, sway = math.cos(2 * math.pi * t / frames), math.sin(2 * math.pi * t / frames)
        radius = 0.3 + 0.06 * beat
        image = 0.5 * ((x / 0.85) ** 2 + (y / 0.75) ** 2 < 1) + 0.3 * ((x + 0.5) ** 2 + (y - 0.3) ** 2 < 0.03)
        image = image + 0.3 * (x**2 + y**2 < radius**2) + 0.4 * (x**2 + y**2 < (radius - 0.12) ** 2)
        image = image + 0.3 * ((x - 0.1 - 0.1 * sway) ** 2 + (y - 0.5) ** 2 < 0.01)
        images.append(torch.nn.functional.avg_pool2d(image[None, None], 4)[0, 0])
    return torch.polar(torch.stack(images), (0.8 * torch.linspace(-1, 1, n)).expand(frames, n, n).contiguous())


@functools.cache
def scan() -> tuple[CartesianMRI, Series, Measurement, Tensor]:
    """Six-fold random undersampling, another in every frame."""
    g = torch.Generator().manual_seed(0)
    masks = torch.stack([random_mask((SIZE, SIZE), 6, 4, g) for _ in range(FRAMES)])
    A = CartesianMRI(birdcage_maps(6, (SIZE, SIZE), g), masks)
    S, x = Series(A, FRAMES), heart()
    noise = torch.randn((1, *S.out_shape), dtype=torch.complex64, generator=g)
    precision = (masks[:, None] / SIGMA**2).expand(1, *S.out_shape)
    return A, S, Measurement((S(x[None]) + SIGMA * noise) * masks[:, None], precision), x


def run(solver: LLR | TV | CGSense, A: CartesianMRI | Series, y: Measurement) -> Solution:
    return solver(A, y, generator=torch.Generator().manual_seed(0))


@functools.cache
def shipped() -> Solution:
    """LLR with its own settings."""
    _, S, y, _ = scan()
    return run(LLR(), S, y)


def error(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def objective(solver: LLR, x: Tensor, weight: Tensor) -> float:
    """chi^2 / 2 + lambda / G sum |B X|_* in float64, by dense SVD."""
    _, S, y, _ = scan()
    total = 0.0
    for k in range(solver.grids):
        blocks = Blocks((SIZE, SIZE), solver.block, k * solver.block // solver.grids).cut(x.to(torch.complex128))
        total += float(torch.linalg.svdvals(blocks).sum()) / solver.grids
    chi2 = float(((S(x) - y.data).abs().square().double() * y.precision).sum())
    return chi2 / 2 + float(weight) * total


def test_frames_are_measured_each_by_its_own_mask() -> None:
    A, S, _, x = scan()
    assert torch.equal(S(x[None])[0], A(x))
    one = x.clone()
    one[3] = 0
    difference = (S(x) - S(one)).abs().flatten(1).amax(1)
    assert [t for t in range(FRAMES) if float(difference[t]) > 0] == [3]
    shared = Series(CartesianMRI(A.maps[0], A.mask[0]), FRAMES)
    assert error(shared(x)[5], CartesianMRI(A.maps[0], A.mask[0])(x[5])) < 1e-6
    with pytest.raises(ValueError, match="16 items, but the series has 5"):
        Series(A, 5)
    with pytest.raises(ValueError, match="frame"):
        Series(A, 0)


@pytest.mark.parametrize(("shape", "size", "shift"), [((16, 16), 8, 0), ((15, 22), 8, 4), ((5, 7), 4, 3)])
def test_blocks_are_an_isometry(shape: tuple[int, int], size: int, shift: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.complex64, generator=generator)
    grid = Blocks(shape, size, shift)
    blocks = grid.cut(x)
    assert torch.equal(grid.join(blocks), x)
    assert float(blocks.norm()) == pytest.approx(float(x.norm()), rel=1e-6)
    # The corner of a block lies at the shift.
    corner = torch.zeros(1, 1, *shape)
    corner[0, 0, shift, shift] = 1
    assert int(grid.cut(corner).flatten(0, 2).sum(0).argmax()) == 0


@pytest.mark.parametrize(("rows", "columns"), [(5, 16), (16, 5), (6, 6)])
def test_the_threshold_is_that_of_the_dense_svd(rows: int, columns: int, generator: torch.Generator) -> None:
    blocks = torch.randn(2, 4, rows, columns, dtype=torch.complex64, generator=generator)
    blocks[0, 0] = 0
    limit = torch.tensor([2.0, 4.0])
    u, s, vh = torch.linalg.svd(blocks.to(torch.complex128), full_matrices=False)
    kept = (s - limit.reshape(2, 1, 1)).clamp_min(0)
    clipped, excess = clip_singular_values(blocks, limit)
    assert error((blocks - clipped).to(u.dtype), (u * kept[..., None, :]) @ vh) < 1e-5
    assert torch.allclose(excess.double(), kept.sum((1, 2)), rtol=1e-5)
    assert torch.allclose(nuclear_norm(blocks).double(), s.sum((1, 2)), rtol=1e-3)


def test_low_rank_beats_the_frames_one_by_one() -> None:
    A, S, y, x = scan()
    llr = error(shipped().image[0], x)
    assert llr < 0.09
    few = slice(0, FRAMES, 4)
    B, frames = CartesianMRI(A.maps, A.mask[few]), Measurement(y.data[0, few], y.precision[0, few])
    assert llr < 0.75 * min(error(run(TV(strength=s), B, frames).image, x[few]) for s in (0.4, 0.8))
    assert llr < 0.45 * error(run(CGSense(), B, frames).image, x[few])
    assert error(run(LLR(grids=1), S, y).image[0], x) > 1.1 * llr


def test_converges_to_the_minimum_of_its_objective() -> None:
    """At the weight it ends with: falling to that of a longer run, a minimum no neighbour undercuts."""
    _, S, y, _ = scan()
    long = run(LLR(iterations=500, tolerance=1e-6), S, y)
    weight = long.diagnostics["weight"]
    best = objective(LLR(), long.image, weight)
    runs = [objective(LLR(), run(LLR(iterations=n, tolerance=0), S, y).image, weight) for n in (5, 20, 80, 320)]
    assert runs == sorted(runs, reverse=True)
    assert runs[-1] < (1 + 1e-4) * best
    assert shipped().converged
    assert error(shipped().image, long.image) < 0.02
    g = torch.Generator().manual_seed(1)
    for scale in (1e-3, 1e-2):
        noise = torch.randn(long.image.shape, dtype=torch.complex64, generator=g) * scale
        assert objective(LLR(), long.image + noise, weight) > best
        assert objective(LLR(), long.image * (1 - scale), weight) > best
        assert objective(LLR(), long.image * (1 + scale), weight) > best


def test_slices_are_refused() -> None:
    A, _, y, _ = scan()
    with pytest.raises(ValueError, match="series"):
        run(LLR(), A, Measurement(y.data[0], y.precision[0]))
    with pytest.raises(ValueError, match="no time axis"):
        solver_class("llr", "mri")
    with pytest.raises(ValueError, match=r"these do: (?!.*llr)"):
        solver_class("fbp", "mri")
    for bad in ({"strength": 0}, {"block": 0}, {"block": 2, "grids": 3}):
        with pytest.raises(ValueError, match="LLR"):
            LLR(**bad)  # type: ignore[arg-type]
