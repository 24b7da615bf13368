"""How noisy each voxel of a reconstruction is: pseudo-replicas of a scan through the solver itself."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Unpack

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.pipeline.job import Job
from medrecon.pipeline.problem import Problem
from medrecon.pipeline.request import Options, Request
from medrecon.quality.noise_maps import pseudo_replica
from medrecon.solvers.base import Solver

log = logging.getLogger(__name__)


def noise_map(scan: Scan, solver: str | Solver, *, replicas: int = 50, **options: Unpack[Options]) -> Volume:
    """Map the SD of every voxel, in the units of the reconstruction, over `replicas` of a scan with noise added anew.

    The noise is that of the scan's noise model, in CT with the model error. For linear solvers (zero-filled, FBP, and
    CG-SENSE where it converges: the steps of CG depend on the data) the map is exact up to 1 / sqrt(2 replicas) of
    itself; others answer for the noise of the scan twice over, since what is in it already stays. Of magnitudes, as the
    images are: where there is signal that is the part of complex noise along it, SD = sigma / sqrt(2).

    Args:
        solver: a name or an object.
        options: see `Request`.

    Raises:
        ValueError: fewer than 2 replicas, a cone-beam scan, a solver that couples slices, or as `reconstruct`.
    """
    if scan.volumetric:
        raise ValueError("noise_map: of slices; a cone-beam scan measures its volume as a whole")
    request = Request(**options)
    job = Job.of(scan, solver, request)
    if job.solver.couples:
        raise ValueError(
            f"noise_map: slice by slice, and {job.name} couples slices; take one that does not, such as dds"
        )
    spread, unfinished = [], Counter[bool]()
    for index in job.batches(1):
        spread.append(_slice(job.problem, job.adapted(index), index, replicas, request.seed, unfinished))
        request.on_progress(index.stop - job.start, job.stop - job.start)
    if unfinished[True]:
        log.warning(
            "%s has not converged in %d of %d replicas: the map is that of stopping where it did; more iterations "
            "change image and noise",
            job.solver.name,
            unfinished[True],
            unfinished.total(),
        )
    return job.volume(torch.cat(spread))


def _slice(
    problem: Problem, solver: Solver, index: slice, replicas: int, seed: int, unfinished: Counter[bool]
) -> Tensor:
    """(1, H, W); counts in `unfinished` which runs did not converge, True, and which did."""
    A, y = problem.operator(index), problem.measurement(index)
    sigma = torch.where(y.precision > 0, y.precision.clamp_min(1e-30).rsqrt(), 0)

    def noisy(g: torch.Generator) -> Tensor:
        return y.data + sigma * torch.randn(y.data.shape, dtype=y.data.dtype, generator=g).to(y.data.device)

    def solve(data: Tensor) -> Tensor:
        found = solver(A, Measurement(data, y.precision), generator=torch.Generator().manual_seed(seed))
        unfinished[not found.converged] += 1
        return problem.values(found.image).cpu()

    return pseudo_replica(solve, noisy, replicas=replicas, generator=torch.Generator().manual_seed(seed))
