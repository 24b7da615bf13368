"""How noisy each voxel of a reconstruction is: pseudo-replicas of a scan through the solver itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.pipeline.job import Job
from medrecon.pipeline.log import warn
from medrecon.pipeline.part import Part, joined
from medrecon.pipeline.request import Options, Request
from medrecon.pipeline.run import told
from medrecon.pipeline.solve import How, solve
from medrecon.quality.noise_maps import deviation
from medrecon.solvers.base import OnStep, Progress, Solution, Solver


def noise_map(scan: Scan, solver: str | Solver, *, replicas: int = 50, **options: Unpack[Options]) -> Volume:
    """Map the SD of every voxel, in the units of the reconstruction, over `replicas` of a scan with noise added anew.

    The noise is that of the scan's noise model, in CT with the model error. For linear solvers (zero-filled, FBP, and
    CG-SENSE where it converges: the steps of CG depend on the data) the map is exact up to 1 / sqrt(2 replicas) of
    itself; others answer for the noise of the scan twice over, since what is in it already stays. Of magnitudes, as the
    images are: where there is signal that is the part of complex noise along it, SD = sigma / sqrt(2).

    Slices that fail, where others do not, are empty and named in a warning.

    Args:
        solver: a name or an object.
        options: see `Request`.

    Raises:
        ValueError: fewer than 2 replicas, a cone-beam scan, a solver that couples slices, or as `reconstruct`.
    """
    request = Request(**options)
    job = Job.of(scan, solver, request)
    check_single(job)
    each = replicated(replicas)
    parts = []
    for index in job.batches(1):
        parts.append(solve(job, index, request.seed, told(job, index, request.on_progress), each))
        request.on_progress(*job.far(index.stop))
    whole = joined(parts)
    warn(whole, job.solver, scan.first)
    return job.volume(whole.values)


def check_single(job: Job) -> None:
    """Raises ValueError where slices cannot be mapped one by one."""
    if job.scan.volumetric:
        raise ValueError("noise_map: of slices; a cone-beam scan measures its volume as a whole")
    if job.solver.couples:
        raise ValueError(
            f"noise_map: slice by slice, and {job.name} couples slices; take one that does not, such as dds"
        )


def replicated(replicas: int) -> How:
    """Return what maps the noise of one item: values are the SD, chi^2/m is the mean of the replicas'.

    Raises:
        ValueError: fewer than 2.
    """
    if replicas < 2:
        raise ValueError(f"replicas: at least 2, got {replicas}")

    def mapped(job: Job, index: slice, seed: int, on_step: OnStep) -> Part:
        began = time.perf_counter()
        A, y = job.problem.operator(index), job.problem.measurement(index)
        solver, before, found = job.adapted(index), A.calls.images.copy(), list[Solution]()
        sigma = torch.where(y.precision > 0, y.precision.clamp_min(1e-30).rsqrt(), 0)

        g = torch.Generator().manual_seed(seed)

        def images() -> Iterator[Tensor]:
            for number in range(1, replicas + 1):
                noise = torch.randn(y.data.shape, dtype=y.data.dtype, generator=g).to(y.data.device)
                again = Measurement(y.data + sigma * noise, y.precision)
                solution = solver(A, again, generator=torch.Generator().manual_seed(seed))
                found.append(replace(solution, image=y.data[:0]))
                yield job.problem.values(solution.image).cpu()
                if on_step(Progress(number, replicas, float(solution.chi2.mean()))) and number > 1:
                    return

        values = deviation(images())
        return _part(index, values, found, A.calls.images - before, time.perf_counter() - began)

    return mapped


def _part(index: slice, values: Tensor, found: list[Solution], calls: Counter[str], seconds: float) -> Part:
    """The map of one item and what its replicas say.

    Raises:
        ValueError: NaN or infinite values.
    """
    chi2 = float(torch.stack([solution.chi2 for solution in found]).double().mean())
    if not bool(values.isfinite().all()):
        raise ValueError("a replica diverged: NaN or infinite values; the noise of the scan may be far too low")
    network: Counter[str] = Counter()
    for solution in found:
        network.update(solution.diagnostics.get("network_calls", {}))
    early = [] if all(solution.converged for solution in found) else [index.start]
    return Part(
        index.start,
        index.stop,
        values,
        chi2={index.start: chi2},
        histories=[(1, [chi2])],
        unfinished=early,
        calls=calls,
        network=network,
        seconds=seconds,
    )
