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
from medrecon.solvers.diffusion.base import DiffusionSolver, example_prior

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
        assert isinstance(cls.couples, bool)
        assert cls.scans in ("any", "cartesian", "partial fourier", "one coil", "series")
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
    # A batch of two is two runs, unless it is a stack that the solver couples: then it is not.
    for i in range(2):
        single = run(solver, (A, y[i : i + 1]))
        assert torch.equal(single.image[0], solution.image[i]) != solver.couples


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


ODD = (13, 18)


def _ct(views: int, detectors: int, shape: tuple[int, int] = ODD) -> LinearOperator:
    angles = tuple(math.pi * k / views for k in range(views))
    return CTOperator(ParallelGeometry(angles, detectors, 1.0), ImageGrid(shape, (1.0, 1.0)))


def _mri(coils: int, shape: tuple[int, int] = ODD) -> CartesianMRI:
    """Every second column, and eight in the middle for calibration."""
    columns = torch.arange(shape[1])
    mask = ((columns % 2 == 0) | ((columns - shape[1] // 2).abs() < 4)).expand(shape).float()
    return CartesianMRI(birdcage_maps(coils, shape, torch.Generator().manual_seed(2)), mask)


UNUSUAL: dict[str, dict[str, LinearOperator]] = {
    "ct": {"odd": _ct(9, 25), "one view": _ct(1, 25), "one detector": _ct(9, 1), "one pixel": _ct(4, 5, (1, 1))},
    "mri": {"odd": _mri(3), "one coil": _mri(1), "one row": _mri(2, (1, 18))},
    "series": {"odd": Series(_mri(2), 3), "one frame": Series(_mri(1), 1)},
    "masked": {"odd": Diagonal((torch.arange(13 * 18) % 3 > 0).float().reshape(ODD))},
}


def _measured(A: LinearOperator) -> Measurement:
    """Two items, the second all 0, of images of order 0.02 with noise of a tenth of that."""
    g = torch.Generator().manual_seed(6)
    x = 0.02 * torch.rand((2, *A.in_shape), generator=g).to(A.in_dtype)
    x[1] = 0
    sampled = torch.ones(A.out_shape) if A.sampled is None else A.sampled.float()
    noise = 0.002 * torch.randn((2, *A.out_shape), dtype=A.out_dtype, generator=g) * sampled
    noise[1] = 0
    return Measurement(A(x) + noise, sampled.expand(1, *A.out_shape) / 0.002**2)


def _small(solver: Any) -> Any:
    return dataclasses.replace(solver, prior=example_prior(ODD)) if solver.needs_prior else solver


def _warm(solver: Any, A: LinearOperator, y: Measurement) -> Solution:
    """Run; a diffusion solver from the data, which saves the start of total variation."""
    warm = {"warm": y.data} if isinstance(solver, DiffusionSolver) else {}
    solution: Solution = solver(A, y, generator=torch.Generator().manual_seed(0), **warm)
    return solution


def _solved_or_refused(solver: Any, A: LinearOperator, y: Measurement) -> tuple[Solution | None, str]:
    """The solution, or what the ValueError says; a LinAlgError of torch is none."""
    try:
        return _warm(solver, A, y), ""
    except ValueError as error:
        return None, str(error)


def _check_finite(solution: Solution, A: LinearOperator, y: Measurement) -> None:
    image = torch.view_as_real(solution.image) if solution.image.is_complex() else solution.image
    assert solution.image.shape == (len(y.data), *A.in_shape)
    assert bool(image.isfinite().all()) and bool(solution.chi2.isfinite().all())
    assert all(math.isfinite(value) for value in solution.residuals)


KINDS = [
    pytest.param(solver, kind, id=f"{cls.name}-{index}-{kind}")
    for cls in FOUND
    for index, solver in enumerate(cls.examples())
    for kind in problems_of(cls)
]


@pytest.mark.parametrize(("solver", "kind"), KINDS)
def test_unusual_problems_are_solved_or_refused(solver: Any, kind: str) -> None:
    """Odd sizes, one view, coil, row or frame, no signal: an image or a ValueError, never NaN or an error of torch."""
    solver = _small(solver)
    for name, A in UNUSUAL[kind].items():
        both = _measured(A)
        for y in (both[:1],) if name == "odd" else (both[:1], both):
            solution, refusal = _solved_or_refused(solver, A, y)
            assert name != "odd" or not refusal
            if solution is not None:
                _check_finite(solution, A, y)
    A, y = UNUSUAL[kind]["odd"], _measured(UNUSUAL[kind]["odd"])
    nothing = Measurement(y.data[1:], 0 * y.precision)
    for silent in (y[1:], nothing):
        solution, refusal = _solved_or_refused(solver, A, silent)
        assert not refusal or "sample" in refusal
        if solution is not None:
            _check_finite(solution, A, silent)
            assert solver.needs_prior or float(solution.image.abs().max()) == 0


@pytest.mark.parametrize(("solver", "kind"), KINDS)
def test_what_does_not_fit_is_refused(solver: Any, kind: str) -> None:
    """No items, data of the other kind of numbers, a precision for samples that the operator does not take."""
    solver, A = _small(solver), UNUSUAL[kind]["odd"]
    y = _measured(A)
    with pytest.raises(ValueError, match="empty"):
        _warm(solver, A, y[:0])
    other = y.data.real.clone() if y.data.is_complex() else y.data + 0j
    with pytest.raises(ValueError, match="does not fit"):
        _warm(solver, A, Measurement(other, y.precision))
    if A.sampled is not None:
        with pytest.raises(ValueError, match="precision above 0 for samples"):
            _warm(solver, A, Measurement(y.data, torch.ones_like(y.precision)))


@pytest.mark.parametrize(("solver", "kind"), [k for k in KINDS if k.values[1] != "masked"])
def test_double_precision_stays_double(solver: Any, kind: str) -> None:
    A, y = UNUSUAL[kind]["odd"], _measured(UNUSUAL[kind]["odd"])
    wide = y.data.to(torch.promote_types(y.data.dtype, torch.float64))
    solution = _warm(solver, A, Measurement(wide, y.precision)[:1])
    assert solution.image.dtype == wide.dtype
    _check_finite(solution, A, y[:1])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.bool])
def test_other_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"convert them, as by data\.float"):
        Measurement(torch.ones(1, 4).to(dtype), torch.ones(1, 4))
