"""Every solver, found by itself, obeys the protocol on every modality it serves."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from medrecon.coils.combine import birdcage_maps
from medrecon.core.discover import classes
from medrecon.core.measurement import Measurement
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.series import Series
from medrecon.sampling.lines import random_mask
from medrecon.solvers.base import Progress, Solution, Solver

Problem = tuple[LinearOperator, Measurement]
SIZE = 32
FOUND = classes("medrecon.solvers", Solver)


def _images() -> torch.Tensor:
    """Two unlike discs (2, 32, 32), non-negative, of order 1."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    first = (x**2 + y**2 < 0.6).float() + 0.5 * ((x - 0.2) ** 2 + y**2 < 0.1)
    second = 2.0 * ((x + 0.2) ** 2 + 2 * y**2 < 0.5)
    return torch.stack([first, second])


def ct_problem() -> Problem:
    angles = [math.pi * k / 20 for k in range(20)]
    A = CTOperator(ParallelGeometry(angles, 48, 1.0), ImageGrid((SIZE, SIZE), (1.0, 1.0)))  # type: ignore[arg-type]
    clean = A(_images() * 0.02)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return A, Measurement(clean + 0.01 * noise, torch.full((1, *A.out_shape), 1e4))


def mri_problem() -> Problem:
    g = torch.Generator().manual_seed(2)
    mask = random_mask((SIZE, SIZE), 2.0, 8, g)
    A = CartesianMRI(birdcage_maps(3, (SIZE, SIZE), g), mask)
    clean = A(torch.polar(_images(), torch.linspace(0, 1, SIZE).expand(2, SIZE, SIZE)))
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=g)
    return A, Measurement((clean + 0.05 * noise) * mask, (mask / 0.05**2).expand(1, *A.out_shape))


def masked_problem() -> Problem:
    """Pixels seen through holes: small enough for solvers with a network prior."""
    g = torch.Generator().manual_seed(3)
    mask = (torch.rand(SIZE, SIZE, generator=g) < 0.5).float()
    data = mask * (_images() - 0.5 + 0.05 * torch.randn(2, SIZE, SIZE, generator=g))
    return Diagonal(mask), Measurement(data, (mask / 0.05**2)[None])


def series_problem() -> Problem:
    """Five frames whose brightness changes, each with a mask of its own."""
    g = torch.Generator().manual_seed(4)
    masks = torch.stack([random_mask((SIZE, SIZE), 3.0, 4, g) for _ in range(5)])
    A = Series(CartesianMRI(birdcage_maps(3, (SIZE, SIZE), g), masks), 5)
    brightness = 1 + 0.3 * torch.sin(torch.arange(5.0))[:, None, None]
    clean = A((_images()[:, None] * brightness).to(torch.complex64))
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=g)
    return A, Measurement((clean + 0.05 * noise) * masks[:, None], (masks[:, None] / 0.05**2).expand(1, *A.out_shape))


PROBLEMS = {"ct": ct_problem(), "mri": mri_problem(), "masked": masked_problem(), "series": series_problem()}


def problems_of(cls: type[Solver]) -> tuple[str, ...]:
    """Return the problems a solver is tried on."""
    if cls.scans == "series":
        return ("series",)
    return ("masked",) if cls.needs_prior else cls.modalities


def cases() -> Iterator[Any]:
    for cls in FOUND:
        for index, solver in enumerate(cls.examples()):
            for kind in problems_of(cls):
                yield pytest.param(solver, PROBLEMS[kind], id=f"{cls.name}-{index}-{kind}")


CASES = list(cases())


def run(solver: Any, problem: Problem, seed: int = 0, on_step: Any = None) -> Solution:
    A, y = problem
    solution: Solution = solver(A, y, generator=torch.Generator().manual_seed(seed), on_step=on_step)
    return solution


def test_the_classes_describe_themselves() -> None:
    assert {"zero-filled", "cg-sense", "tv", "l1-wavelet"} <= {c.name for c in FOUND}
    assert len({c.name for c in FOUND}) == len(FOUND)
    for cls in FOUND:
        assert set(cls.modalities) <= {"ct", "mri"}
        assert cls.modalities
        assert cls.summary
        assert "\n" not in cls.summary
        assert isinstance(cls.needs_prior, bool)
        assert cls.scans in ("any", "cartesian", "partial fourier", "series")
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        own = cls.__module__.startswith("medrecon.")
        assert not own or any(c.values[0].name == cls.name for c in CASES), f"{cls.__name__}.examples() is empty"


@pytest.mark.parametrize(("solver", "problem"), CASES)
def test_protocol(solver: Any, problem: Problem) -> None:
    A, y = problem
    data, precision = y.data.clone(), y.precision.clone()
    steps: list[Progress] = []
    solution = run(solver, problem, on_step=lambda p: steps.append(p))
    assert solution.image.shape == (2, *A.in_shape)
    assert solution.image.dtype == A.in_dtype
    assert bool(torch.isfinite(torch.view_as_real(solution.image) if A.in_dtype.is_complex else solution.image).all())
    assert torch.equal(y.data, data), "the measurement was changed"
    assert torch.equal(y.precision, precision), "the precision was changed"
    # chi^2/m is that of the image returned.
    assert torch.allclose(solution.chi2, y.chi2(A(solution.image)), rtol=1e-4)
    assert isinstance(solution.converged, bool)
    # One call of on_step for each residual.
    assert [p.step for p in steps] == list(range(1, len(steps) + 1))
    assert [p.chi2 for p in steps] == solution.residuals
    assert 1 <= len(steps) <= steps[0].steps
    if solver.needs_prior or not solution.converged:
        assert len(steps) == steps[0].steps, "a step passed without on_step, or ended unconverged before the last"
    # Same seed, same bits; watching changes nothing.
    assert torch.equal(run(solver, problem).image, solution.image)
    # A batch of two is two runs.
    for i in range(2):
        single = run(solver, (A, y[i : i + 1]))
        assert torch.equal(single.image[0], solution.image[i])


@pytest.mark.parametrize(("solver", "problem"), CASES)
def test_on_step_stops_and_errors_are_clear(solver: Any, problem: Problem) -> None:
    A, y = problem
    stopped = run(solver, problem, on_step=lambda p: True)
    assert len(stopped.residuals) == 1
    assert not stopped.converged or len(run(solver, problem).residuals) == 1
    assert stopped.image.shape == (2, *A.in_shape)
    narrow = Measurement(y.data[..., :-1], y.precision[..., :-1])
    with pytest.raises(ValueError, match="shape"):
        run(solver, (A, narrow))
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.name = "other"


@pytest.mark.parametrize(("solver", "problem"), [c for c in CASES if c.id and "masked" not in c.id])
def test_units_do_not_matter(solver: Any, problem: Problem) -> None:
    """Data in other units, with the precision in those units, give the image in those units."""
    A, y = problem
    image = run(solver, problem).image
    scaled = run(solver, (A, Measurement(y.data * 64, y.precision / 64**2))).image / 64
    assert float(torch.linalg.vector_norm(scaled - image) / torch.linalg.vector_norm(image)) < 2e-3
