"""SART, Huber and ASD-POCS: against closed forms, independent minimisers, each other, and dead or unsorted views."""

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse, views
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.noise import CTNoise
from medrecon.geometry import FanGeometry, ImageGrid, ParallelGeometry
from medrecon.numerics.differences import gradient, total_variation
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator
from medrecon.solvers.base import Solution, Solver
from medrecon.solvers.ct.asd_pocs import ASDPOCS
from medrecon.solvers.ct.ordered_subsets import groups
from medrecon.solvers.ct.sart import SART
from medrecon.solvers.ct.sirt import SIRT
from medrecon.solvers.variational.huber import Huber, Penalty

pytestmark = pytest.mark.usefixtures("one_thread")
BODY, INSERT = Ellipse(12.0, -9.0, 45.0, 35.0, 0.5), Ellipse(20.0, -5.0, 12.0, 8.0, mu=0.005)
GRID = ImageGrid((48, 48), (2.6, 2.6))
NOISE = CTNoise(2e3, 5.0, 0.02, 0.005)  # large pixels: a coarse model
SOLVERS = [SART(6), SART(3, subsets=0, relaxation=0.6), Huber(iterations=40), ASDPOCS(12, subsets=6)]


@functools.cache
def scan() -> tuple[CTOperator, Measurement, Tensor]:
    """Operator, two noisy scans (the second of half the object) and both images."""
    A = CTOperator(FanGeometry(views(40), 86, 4.4, 400.0, 300.0), GRID)
    exact = BODY.sinogram(A.geometry) + INSERT.sinogram(A.geometry)
    image = BODY.image(GRID) + INSERT.image(GRID)
    noisy = NOISE.simulate(torch.stack([exact, exact / 2]), torch.Generator().manual_seed(0))
    return A, Measurement(noisy, NOISE.precision(noisy)), torch.stack([image, image / 2])


@functools.cache
def tiny() -> tuple[CTOperator, Measurement, np.ndarray]:
    """A problem small enough for dense algebra: 10 x 9 pixels, the matrix in float64."""
    A = CTOperator(ParallelGeometry(views(12, math.pi, 0.1), 17, 1.0), ImageGrid((10, 9), (1.0, 1.0)))
    g = torch.Generator().manual_seed(3)
    image = 0.02 * (1 + (torch.arange(9) > 3).float().expand(10, 9))
    image[:2] = 0
    data = A(image[None]) + 0.01 * torch.randn(1, *A.out_shape, generator=g)
    precision = 1e4 * (0.5 + torch.rand(1, *A.out_shape, generator=g))
    return A, Measurement(data, precision), A(torch.eye(90).reshape(90, 10, 9)).reshape(90, -1).T.double().numpy()


def run(solver: Solver, A: LinearOperator, y: Measurement) -> Solution:
    return solver(A, y, generator=torch.Generator().manual_seed(1))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def smallest(weight: float, knee: float) -> tuple[np.ndarray, float]:
    """The minimiser of chi^2/2 + weight R over x >= 0 by L-BFGS-B in float64, its derivatives by autograd."""
    optimize = pytest.importorskip("scipy.optimize")
    A, y, dense = tiny()
    matrix, data, precision = (torch.as_tensor(v).double() for v in (dense, y.data.flatten(), y.precision.flatten()))

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(values / 100, requires_grad=True)
        size = (gradient(x.reshape(10, 9), 2).square().sum(0) + 1e-30).sqrt()
        rounded = torch.where(size < knee, size.square() / (2 * knee), size - knee / 2).sum()
        value = (precision * (matrix @ x - data).square()).sum() / 2 + weight * rounded
        value.backward()
        return float(value.detach()), x.grad.numpy() / 100  # type: ignore[union-attr]

    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 60}
    found = optimize.minimize(objective, np.ones(90), jac=True, bounds=[(0, None)] * 90, options=options)
    return found.x / 100, found.fun


def huber_objective(x: Tensor, solution: Solution) -> float:
    A, y, dense = tiny()
    misfit = torch.from_numpy(dense) @ x.double().flatten() - y.data.flatten()
    rounded = Penalty(solution.diagnostics["knee"].double(), 2)(x.double().reshape(1, 10, 9))
    return float((y.precision.flatten() * misfit.square()).sum() / 2 + solution.diagnostics["weight"] * rounded)


@pytest.mark.parametrize(("strength", "knee"), [(0.2, 0.3), (0.8, 0.05), (0.02, 1.0)])
def test_huber_is_the_minimum(strength: float, knee: float) -> None:
    A, y, _ = tiny()
    solution = run(Huber(strength, knee, 20000, 1e-7), A, y)
    assert solution.converged and float(solution.image.min()) == 0
    weight, d = float(solution.diagnostics["weight"]), float(solution.diagnostics["knee"])
    best, value = smallest(weight, d)
    assert huber_objective(solution.image, solution) == pytest.approx(value, rel=1e-4)
    assert distance(solution.image[0].double().flatten(), torch.from_numpy(best)) < 1e-3
    # The test has teeth: other settings have other minima.
    assert distance(solution.image[0].double().flatten(), torch.from_numpy(smallest(1.2 * weight, d)[0])) > 2e-3


def test_huber_with_a_huge_knee_is_quadratic() -> None:
    """No pixel reaches the knee: Tikhonov's closed form (A^T W A + lambda / d G^T G)^-1 A^T W y, positive here."""
    A, y, dense = tiny()
    solid = torch.full((1, 10, 9), 0.02)
    solid[..., 4:] = 0.03
    noise = torch.randn(y.data.shape, generator=torch.Generator().manual_seed(5))
    y = Measurement(A(solid) + 0.01 * noise, y.precision)
    solution = run(Huber(50.0, 100.0, 20000, 1e-7), A, y)
    G = gradient(torch.eye(90).reshape(90, 10, 9), 2).transpose(0, 1).reshape(90, -1).T.double().numpy()
    W = y.precision.double().flatten().numpy()
    ratio = float(solution.diagnostics["weight"] / solution.diagnostics["knee"])
    closed = np.linalg.solve(dense.T * W @ dense + ratio * G.T @ G, dense.T @ (W * y.data.double().flatten().numpy()))
    plain = np.linalg.solve(dense.T * W @ dense, dense.T @ (W * y.data.double().flatten().numpy()))
    assert closed.min() > 0
    assert distance(solution.image[0].double().flatten(), torch.from_numpy(closed)) < 2e-3
    assert distance(torch.from_numpy(plain), torch.from_numpy(closed)) > 0.02


def test_huber_with_a_tiny_knee_is_tv() -> None:
    _, _, (x, _) = scan()
    knees = (0.1, 0.01, 0.0001)
    gaps = [float(1 - Penalty(torch.tensor([0.02 * k]), 2)(x[None]) / total_variation(x[None], 2)) for k in knees]
    assert gaps[0] > 0.05 > gaps[1] > 10 * gaps[2] and 0 <= gaps[2] < 1e-3


def test_huber_derivatives_and_majoriser() -> None:
    g = torch.Generator().manual_seed(8)
    x = torch.randn(2, 7, 5, generator=g, dtype=torch.float64)
    penalty = Penalty(torch.tensor([0.5, 2.0], dtype=torch.float64), 2)
    slope, bend = penalty.derivatives(x)
    z = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(penalty(z).sum(), z)
    assert torch.allclose(slope, expected, atol=1e-9)
    for scale in (0.01, 0.3, 3.0):
        move = scale * torch.randn(2, 7, 5, generator=g, dtype=torch.float64)
        above = penalty(x) + ((slope + bend * move / 2) * move).flatten(1).sum(1)
        assert bool((penalty(x + move) <= above).all())


def test_one_subset_is_sirt() -> None:
    A, y, _ = scan()
    for weights in ("rays", "precision"):
        for nonnegative in (True, False):
            sart = run(SART(15, 1, 1.0, 1.0, weights, nonnegative, 0.0), A, y)  # type: ignore[arg-type]
            sirt = run(SIRT(15, weights, nonnegative, 0.0), A, y)  # type: ignore[arg-type]
            assert distance(sart.image, sirt.image) < 1e-6
            assert sart.residuals == pytest.approx(sirt.residuals, rel=1e-5)
    assert distance(run(SART(15, 4, discrepancy=0), A, y).image, sirt.image) > 0.05


@pytest.mark.parametrize("subsets", [0, 6])
def test_sart_solves_consistent_data(subsets: int) -> None:
    """Two rays a pixel and no noise: the image is the only solution, and SIRT is still on its way there."""
    A = CTOperator(ParallelGeometry(views(30, math.pi, 0.1), 21, 0.5), ImageGrid((8, 7), (1.0, 1.0)))
    truth = 0.02 * torch.rand(1, 8, 7, generator=torch.Generator().manual_seed(4))
    y = Measurement(A(truth), torch.ones(1, *A.out_shape))
    for weights in ("rays", "precision"):
        assert distance(run(SART(60, subsets, 1.0, 1.0, weights, discrepancy=0.0), A, y).image, truth) < 1e-4  # type: ignore[arg-type]
        assert distance(run(SIRT(60, weights, discrepancy=0.0), A, y).image, truth) > 1e-2  # type: ignore[arg-type]


def test_subsets_speed_up_and_reach_the_noise() -> None:
    A, y, truth = scan()
    sirt, sart = run(SIRT(400), A, y), run(SART(subsets=8), A, y)
    assert sirt.converged and sart.converged and bool((sart.chi2 <= 1.001).all())
    assert len(sart.residuals) < len(sirt.residuals) / 4
    assert distance(sart.image, truth) < 1.1 * distance(sirt.image, truth)


def test_groups_share_the_views_and_jump() -> None:
    A, _, _ = scan()
    for count in (0, 1, 3, 8, 40, 99):
        found = groups(A, count)
        assert sorted(v for group in found for v in group) == list(range(40))
        assert len(found) == (min(count, 40) or 40)
    singles = [group[0] for group in groups(A, 0)]
    jumps = [abs(a - b) % 40 for a, b in zip(singles, singles[1:], strict=False)]
    assert min(min(j, 40 - j) for j in jumps) >= 10  # a quarter turn at least
    with pytest.raises(ValueError, match="number"):
        groups(A, -1)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_order_of_the_views_does_not_matter(solver: Solver) -> None:
    A, y, _ = scan()
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(2)).tolist()
    turned = replace(A.geometry, angles=tuple(A.geometry.angles[i] + 2 * math.pi * (i % 3) for i in shuffled))
    other = run(solver, CTOperator(turned, GRID), Measurement(y.data[:, shuffled], y.precision[:, shuffled]))
    assert distance(other.image, run(solver, A, y).image) < 1e-3


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_dead_view_leaves_no_trace(solver: Solver) -> None:
    A, y, truth = scan()
    images = []
    for value in (0.0, 7.0):
        data, precision = y.data.clone(), y.precision.clone()
        data[:, 11], precision[:, 11] = value, 0.0
        images.append(run(solver, A, Measurement(data, precision)).image)
    assert torch.equal(images[0], images[1])
    alive = [k for k in range(40) if k != 11]
    without = run(solver, A.subset(alive), Measurement(y.data[:, alive], y.precision[:, alive])).image
    assert distance(images[0], without) < (1e-3 if isinstance(solver, Huber) else 0.04)  # other subsets
    trusted = y.data.clone()
    trusted[:, 11] = 7.0  # the negative control: the same view with its precision
    assert distance(run(solver, A, Measurement(trusted, y.precision)).image, without) > 0.05


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_units_and_batches_do_not_matter(solver: Solver) -> None:
    A, y, _ = scan()
    together = run(solver, A, y).image
    scaled = run(solver, A, Measurement(y.data * 1000, y.precision / 1e6)).image / 1000
    assert distance(scaled, together) < 1e-3
    for i in range(2):
        assert distance(run(solver, A, y[i : i + 1]).image[0], together[i]) < 1e-3
    assert float(together.min()) >= 0


def test_best_huber_strength_does_not_follow_the_noise() -> None:
    A, _, truth = scan()
    clean, g = A(truth), torch.Generator().manual_seed(6)
    for sigma in (0.02, 0.08):
        y = Measurement(clean + sigma * torch.randn(clean.shape, generator=g), torch.full((1, 1, 1), sigma**-2))
        errors = [distance(run(Huber(s, iterations=60), A, y).image, truth) for s in (0.05, 0.2, 0.8, 3.2)]
        assert errors.index(min(errors)) == 2
    wrong = Measurement(y.data, y.precision * 16)  # the negative control: noise taken for that of the first scan
    errors = [distance(run(Huber(s, iterations=60), A, wrong).image, truth) for s in (0.05, 0.2, 0.8, 3.2)]
    assert errors.index(min(errors)) == 3


def test_asd_pocs_has_less_tv_at_the_same_data() -> None:
    A, _, truth = scan()
    noise = torch.randn(2, *A.out_shape, generator=torch.Generator().manual_seed(9))
    y = Measurement(A(truth) + 0.02 * noise, torch.full((1, 1, 1), 2500.0))
    solution = run(ASDPOCS(200, epsilon=0.95, subsets=8), A, y)
    assert solution.converged
    assert bool((solution.chi2 <= 0.951).all()) and bool((solution.chi2 > 0.85).all())
    assert bool((solution.diagnostics["cosine"] <= -0.5).all())
    alone = run(ASDPOCS(200, epsilon=0.95, subsets=8), A, y[1:])  # it stops by itself, with others or without
    assert distance(alone.image[0], solution.image[1]) < 5e-3
    sart = run(SART(200, 8, 0.5, discrepancy=0.95), A, y)
    assert sart.converged and bool((sart.chi2 > 0.85).all())
    assert bool((total_variation(solution.image, 2) < 0.8 * total_variation(sart.image, 2)).all())
    assert distance(solution.image, truth) < 0.6 * distance(sart.image, truth)


def test_without_tv_steps_asd_pocs_is_sart() -> None:
    A, y, _ = scan()
    plain = run(ASDPOCS(6, epsilon=0.0, beta_red=0.9, ng=0, subsets=5), A, y).image
    assert distance(plain, run(SART(6, 5, reduction=0.9, discrepancy=0.0), A, y).image) < 1e-6


def test_bad_settings_and_operators_are_named() -> None:
    y = Measurement(torch.ones(1, 4), torch.ones(1, 4))
    for solver in (SART(), ASDPOCS()):
        with pytest.raises(TypeError, match=r"Diagonal.*subset"):
            run(solver, Diagonal(torch.ones(4)), y)
    assert run(SART(subsets=1, discrepancy=0), Diagonal(torch.ones(4)), y).image[0].tolist() == pytest.approx([1.0] * 4)
    complex_y = Measurement(torch.ones(1, 4, dtype=torch.complex64), torch.ones(1, 4))
    for solver in (SART(), ASDPOCS(), Huber()):
        with pytest.raises(TypeError, match="non-negative"):
            run(solver, Diagonal(torch.ones(4, dtype=torch.complex64)), complex_y)
    bad: list[tuple[type[Any], dict[str, float]]] = [
        (SART, {"relaxation": 2.0}),
        (SART, {"subsets": -1}),
        (Huber, {"knee": 0.0}),
        (Huber, {"strength": -1.0}),
        (ASDPOCS, {"beta": 0.0}),
        (ASDPOCS, {"alpha_red": 1.5}),
        (ASDPOCS, {"ng": -1}),
    ]
    for cls, settings in bad:
        with pytest.raises(ValueError, match="needs"):
            cls(**settings)


def test_nothing_measured_gives_zero() -> None:
    A, y, _ = scan()
    for solver in SOLVERS:
        nothing = run(solver, A, Measurement(torch.zeros_like(y.data), torch.zeros(1, 1, 1)))
        assert float(nothing.image.abs().max()) == 0
