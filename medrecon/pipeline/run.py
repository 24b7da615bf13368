"""reconstruct: a scan or a measurement, and a solver; a volume and a report, or a solution."""

from __future__ import annotations

from typing import Any, Unpack, overload

import torch

from medrecon import __version__
from medrecon.core.measurement import Measurement
from medrecon.core.progress import OnProgress
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.operators.base import LinearOperator
from medrecon.pipeline.choose import as_values, settable
from medrecon.pipeline.job import Job
from medrecon.pipeline.log import summary, warn
from medrecon.pipeline.part import Part, joined
from medrecon.pipeline.request import Options, Request
from medrecon.pipeline.solve import solve
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
    count = len(y.data)

    def on_step(p: Progress) -> None:
        request.on_progress(count * min(1.0, p.step / max(1, p.steps)), count)

    return solver(A, y, generator=torch.Generator().manual_seed(request.seed), on_step=on_step)


def _volume(scan: Scan, solver: str | Solver, request: Request) -> tuple[Volume, dict[str, Any]]:
    job, parts = Job.of(scan, solver, request), []
    size = usual_batch(job, request)
    for index in job.batches(size):
        parts.append(solve(job, index, request.seed, told(job, index, request.on_progress)))
        request.on_progress(*job.far(index.stop))
    whole = joined(parts)
    return job.volume(whole.values), report_of(job, request, size, whole)


def report_of(job: Job, request: Request, size: int, whole: Part) -> dict[str, Any]:
    """Return the report on all batches of a job; say what failed or did not converge.

    Args:
        whole: the batches, joined; their values are not looked at.

    Raises:
        Exception: what the first slice raised, if all of them failed.
    """
    first = job.scan.first
    warn(whole, job.solver, first)
    each = job.slices_each
    report = {
        "solver": job.name,
        "settings": settings_of(job.solver),
        "slices": [first + job.start * each, first + job.stop * each],
        "seed": request.seed,
        "batch": size,
        "device": request.device,
        "units": job.problem.units,
        **job.problem.facts,
        **summary(whole, first),
        "seconds": whole.seconds,
        "versions": {"medrecon": __version__, "torch": str(torch.__version__)},
        "inverse_crime": job.scan.provenance.get("inverse_crime"),
    }
    if job.prior is not None:
        report["prior"] = {"name": job.prior.name, "sha256": job.prior.card.get("sha256"), "label": job.prior.label}
    return report


def usual_batch(job: Job, request: Request) -> int:
    """Return how many slices are solved at once, unless it is said. On a CPU networks gain nothing from more, and
    gradients through them take 0.13 GB a slice of 256 x 256; projectors serve eight images in the time of five, which
    are two slices of ReSample.
    """
    if request.batch is not None:
        return request.batch
    if job.solver.couples:
        return job.stop - job.start
    if job.prior is None or request.device != "cpu":
        return 8
    return 2 if job.scan.modality == "ct" else 1


def told(job: Job, index: slice, on_progress: OnProgress) -> OnStep:
    """Return what a solver calls after every step on the items `index`, to tell how far all of them are."""

    def step(p: Progress) -> None:
        on_progress(*job.far(index.start + (index.stop - index.start) * min(1.0, p.step / max(1, p.steps))))

    return step


def settings_of(solver: Any) -> dict[str, Any]:
    """Return the hyper-parameters a solver ran with."""
    return {f.name: as_values(getattr(solver, f.name)) for f in settable(type(solver))}
