"""reconstruct: a scan or a measurement, and a solver; a volume and a report, or a solution."""

from __future__ import annotations

import time
from typing import Any, Unpack, overload

import torch
from torch import Tensor

from medrecon import __version__
from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.operators.base import LinearOperator
from medrecon.pipeline.choose import as_values, settable
from medrecon.pipeline.job import Job
from medrecon.pipeline.log import Log
from medrecon.pipeline.request import Options, Request
from medrecon.solvers.base import OnStep, Progress, Solution, Solver, check_fit


@overload
def reconstruct(
    measured: Scan, solver: str | Solver, /, **options: Unpack[Options]
) -> tuple[Volume, dict[str, Any]]: ...


@overload
def reconstruct(
    measured: LinearOperator, y: Measurement, solver: Solver, /, **options: Unpack[Options]
) -> Solution: ...


def reconstruct(measured: Scan | LinearOperator, y: Any = None, solver: Any = None, **options: Unpack[Options]) -> Any:
    """Reconstruct a scan, `reconstruct(scan, solver)`, or an operator's data, `reconstruct(A, y, solver)`.

    Of a scan, every batch gets a generator with the same seed, and solvers share their draws over a batch, so the
    result does not depend on `batch` or `slices`. A solver that couples slices is the exception: it solves all `slices`
    as one stack, and those at its ends have one neighbour less.

    Args:
        measured: a scan; or an operator, with its measurement y (B, *A.out_shape) as the second argument.
        solver: a name from `describe_solvers()`, or an object, such as `TV(iterations=50)`.
        options: of a scan, see `Request`; of an operator, seed and on_progress.

    Returns:
        Of a scan the volume at its affine, HU for CT and magnitude in the scan's own units for MRI, and a report ready
        for JSON. Of an operator the solution, in its units. Slices that could not be reconstructed, where others
        could, are air (CT) or 0 (MR) in the volume and named in the report, `failed`, and in a warning.

    Raises:
        RequestError: unknown solver or setting (names the nearest), one that does not do this scan, slices outside the
            scan, or of a cone beam; a prior of another modality or other units, a class that it does not know, or
            either for a solver without a prior; options that have no meaning for a solver object or an operator; a
            device that is not there.
        ValueError: a measurement that does not fit its operator, or no slice that can be reconstructed.
        FileNotFoundError: a learned solver without weights.
    """
    request = Request(**options)
    if isinstance(measured, LinearOperator):
        return _solution(measured, y, solver, request)
    if not isinstance(measured, Scan):
        raise TypeError(f"reconstruct: expected a Scan or a LinearOperator first, got {type(measured).__name__}")
    if solver is not None:
        raise TypeError(f"with a scan, give one solver: reconstruct(scan, solver), not {y!r} and {solver!r}")
    return _volume(measured, y, request)


def _solution(A: LinearOperator, y: Measurement, solver: Solver, request: Request) -> Solution:
    given = ("mode", "slices", "device", "batch", "settings", "prior", "label", "maps")
    request.refuse(given, "for a scan; with an operator the solver and the data say it")
    if not isinstance(solver, Solver):
        raise TypeError(f"with an operator, give a solver object such as TV(), not {solver!r}")
    if not isinstance(y, Measurement):
        raise TypeError(f"with an operator, give its data and their precision, Measurement, not {type(y).__name__}")
    check_fit(A, y)
    on_step = _told(request, slice(0, len(y.data)), 0, len(y.data))
    return solver(A, y, generator=torch.Generator().manual_seed(request.seed), on_step=on_step)


def _volume(scan: Scan, solver: str | Solver, request: Request) -> tuple[Volume, dict[str, Any]]:
    job = Job.of(scan, solver, request)
    size = request.batch or (job.stop - job.start if job.solver.couples else _usual_batch(job, request.device))
    each, began, log, parts = scan.slice_count // len(scan.data), time.perf_counter(), Log(job.start, job.stop), []
    for index in job.batches(size):
        on_step = _told(request, index, job.start, job.stop, each)
        parts.append(_solve_each(job, index, request.seed, on_step, log))
        request.on_progress((index.stop - job.start) * each, (job.stop - job.start) * each)
    log.warn(job.solver)
    report = {
        "solver": job.name,
        "settings": settings_of(job.solver),
        "slices": [job.start * each, job.stop * each],
        "seed": request.seed,
        "batch": size,
        "device": request.device,
        "units": job.problem.units,
        **job.problem.facts,
        **log.report(),
        "seconds": time.perf_counter() - began,
        "versions": {"medrecon": __version__, "torch": str(torch.__version__)},
        "inverse_crime": scan.provenance.get("inverse_crime"),
    }
    if job.prior is not None:
        report["prior"] = {"name": job.prior.name, "sha256": job.prior.card.get("sha256"), "label": job.prior.label}
    return job.volume(parts), report


def _usual_batch(job: Job, device: str) -> int:
    """How many slices are solved at once. On a CPU networks gain nothing from more, and gradients through them take
    0.13 GB a slice of 256 x 256; projectors serve eight images in the time of five, which are two slices of ReSample.
    """
    if job.prior is None or device != "cpu":
        return 8
    return 2 if job.scan.modality == "ct" else 1


def _told(request: Request, index: slice, start: int, stop: int, each: int = 1) -> OnStep:
    """What a solver calls after every step on the items `index`, to tell how far all of them are."""

    def step(p: Progress) -> None:
        done = index.start - start + (index.stop - index.start) * min(1.0, p.step / max(1, p.steps))
        request.on_progress(done * each, (stop - start) * each)

    return step


BAD_DATA = (ValueError, ArithmeticError, RuntimeError)
"""What a solver raises of data that it cannot do; RuntimeError is torch's, of a matrix that is singular, too."""


def _solve_each(job: Job, index: slice, seed: int, on_step: OnStep, log: Log) -> Tensor:
    """One batch; where it fails, each of its slices alone, and those that fail empty and noted. A coupled stack fails
    as a whole: its slices alone would be another reconstruction."""
    try:
        values = _solve(job, index, seed, on_step, log)
    except torch.OutOfMemoryError:
        raise
    except BAD_DATA as error:
        if job.scan.volumetric or job.solver.couples or job.stop - job.start == 1:
            raise
        if index.stop - index.start > 1:
            alone = [slice(i, i + 1) for i in range(index.start, index.stop)]
            return torch.cat([_solve_each(job, one, seed, on_step, log) for one in alone])
        log.failed[index.start] = error
        return job.empty()
    return values


def _solve(job: Job, index: slice, seed: int, on_step: OnStep, log: Log) -> Tensor:
    """One batch: values (B, *image_shape) on the CPU.

    Raises:
        ValueError: the solver gave NaN or infinite values, or chi^2/m is.
    """
    A, y = job.problem.operator(index), job.problem.measurement(index)
    before = A.calls.images.copy()
    solution = job.adapted(index)(A, y, generator=torch.Generator().manual_seed(seed), on_step=on_step)
    values = job.problem.values(solution.image).cpu()
    if not bool(values.isfinite().all() & solution.chi2.isfinite().all()):
        raise ValueError(
            f"{job.solver.name} diverged: NaN or infinite values; the noise of the scan may be far too low, see `sigma`"
        )
    log.add(index, solution, A.calls.images - before)
    return values


def settings_of(solver: Any) -> dict[str, Any]:
    """Return the hyper-parameters a solver ran with."""
    return {f.name: as_values(getattr(solver, f.name)) for f in settable(type(solver))}
