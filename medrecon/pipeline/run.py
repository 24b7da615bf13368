"""reconstruct: a scan or a measurement, and a solver; a volume and a report, or a solution."""

from __future__ import annotations

import math
import time
from collections import Counter
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
    result does not depend on `batch` or `slices`.

    Args:
        measured: a scan; or an operator, with its measurement y (B, *A.out_shape) as the second argument.
        solver: a name from `describe_solvers()`, or an object, such as `TV(iterations=50)`.
        options: of a scan, see `Request`; of an operator, seed and on_progress.

    Returns:
        Of a scan the volume at its affine, HU for CT and magnitude in the scan's own units for MRI, and a report ready
        for JSON. Of an operator the solution, in its units.

    Raises:
        ValueError: unknown solver or setting (names the nearest), one that does not do this scan, slices outside the
            scan, or of a cone beam; a class that the prior does not know, or one for a solver without a prior; options
            that have no meaning for a solver object or an operator; a measurement that does not fit its operator.
        FileNotFoundError: a learned solver without weights.
    """
    request = Request(**options)
    if isinstance(measured, LinearOperator):
        return _solution(measured, y, solver, request)
    return _volume(measured, y if solver is None else solver, request)


def _solution(A: LinearOperator, y: Measurement, solver: Solver, request: Request) -> Solution:
    given = ("mode", "slices", "device", "batch", "settings", "prior", "label", "maps")
    request.refuse(given, "for a scan; with an operator the solver and the data say it")
    if not isinstance(solver, Solver):
        raise TypeError(f"with an operator, give a solver object such as TV(), not {solver!r}")
    check_fit(A, y)
    on_step = _told(request, slice(0, len(y.data)), 0, len(y.data))
    return solver(A, y, generator=torch.Generator().manual_seed(request.seed), on_step=on_step)


def _volume(scan: Scan, solver: str | Solver, request: Request) -> tuple[Volume, dict[str, Any]]:
    job = Job.of(scan, solver, request)
    size = request.batch or _usual_batch(job, request.device)
    each, began, log, parts = scan.slice_count // len(scan.data), time.perf_counter(), Log(), []
    for index in job.batches(size):
        on_step = _told(request, index, job.start, job.stop, each)
        parts.append(_solve(job, index, request.seed, on_step, log))
        request.on_progress((index.stop - job.start) * each, (job.stop - job.start) * each)
    report = {
        "solver": job.name,
        "settings": settings_of(job.solver),
        "slices": [job.start * each, job.stop * each],
        "seed": request.seed,
        "batch": size,
        "device": request.device,
        "units": job.problem.units,
        **job.problem.facts,
        **log.report(job.stop - job.start),
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


def _solve(job: Job, index: slice, seed: int, on_step: OnStep, log: Log) -> Tensor:
    """One batch: values (B, *image_shape) on the CPU."""
    A, y = job.problem.operator(index), job.problem.measurement(index)
    before = A.calls.images.copy()
    solution = job.adapted(index)(A, y, generator=torch.Generator().manual_seed(seed), on_step=on_step)
    _check_finite(solution, index, job.name)
    log.add(solution, A.calls.images - before)
    return job.problem.values(solution.image).cpu()


def _check_finite(solution: Solution, index: slice, name: str) -> None:
    """Raises ValueError where a slice came out with NaN or infinite values, or with such a chi^2/m."""
    for number, image, chi2 in zip(range(index.start, index.stop), solution.image, solution.chi2.tolist(), strict=True):
        if not math.isfinite(chi2) or not bool(image.isfinite().all()):
            raise ValueError(
                f"slice {number}: {name} diverged (chi^2/m {chi2}): its image has NaN or infinite values or does not "
                "belong to the data; the noise of the scan may be far too low: see `sigma` in the measurement"
            )


class Log:
    """Gathers what the batches report, per slice."""

    def __init__(self) -> None:
        self.chi2: list[float] = []
        self.histories: list[tuple[int, list[float]]] = []
        self.converged = True
        self.calls: Counter[str] = Counter()
        self.network: Counter[str] = Counter()

    def add(self, solution: Solution, calls: Counter[str]) -> None:
        items = len(solution.image)
        self.chi2 += solution.chi2.tolist()
        self.histories.append((items, solution.residuals))
        self.converged &= solution.converged
        self.calls += calls
        for name, number in solution.diagnostics.get("network_calls", {}).items():
            self.network[name] += number * items

    def report(self, count: int) -> dict[str, Any]:
        """Return means over slices; of chi^2/m after every step too, a finished slice keeping its last."""
        longest = max(len(h) for _, h in self.histories)
        padded = [(n, h + h[-1:] * (longest - len(h))) for n, h in self.histories if h]
        mean = [sum(n * h[i] for n, h in padded) / sum(n for n, _ in padded) for i in range(longest)]
        result: dict[str, Any] = {
            "chi2": sum(self.chi2) / len(self.chi2),
            "chi2_slices": self.chi2,
            "residuals": mean,
            "converged": self.converged,
            "operator_calls_per_slice": {name: number / count for name, number in sorted(self.calls.items())},
        }
        if self.network:
            result["network_calls_per_slice"] = {name: number / count for name, number in sorted(self.network.items())}
        return result


def settings_of(solver: Any) -> dict[str, Any]:
    """Return the hyper-parameters a solver ran with."""
    return {f.name: as_values(getattr(solver, f.name)) for f in settable(type(solver))}
