"""One batch of a job, solved; what fails in it costs the others nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from medrecon.pipeline.job import Job
from medrecon.pipeline.part import Part, joined
from medrecon.solvers.base import OnStep

log = logging.getLogger(__name__)

How = Callable[[Job, slice, int, OnStep], Part]
"""Solves some items of a job, with a seed; raises where one of them fails."""

BAD_DATA = (ValueError, ArithmeticError, RuntimeError)
"""What a solver raises of data that it cannot do; RuntimeError is torch's, of a matrix that is singular, too."""


def reconstructed(job: Job, index: slice, seed: int, on_step: OnStep) -> Part:
    """Reconstruct one batch.

    Raises:
        ValueError: the solver gave NaN or infinite values, or chi^2/m is.
    """
    began = time.perf_counter()
    A, y = job.problem.operator(index), job.problem.measurement(index)
    before = A.calls.images.copy()
    solution = job.adapted(index)(A, y, generator=torch.Generator().manual_seed(seed), on_step=on_step)
    values = job.problem.values(solution.image).cpu()
    if not bool(values.isfinite().all() & solution.chi2.isfinite().all()):
        raise ValueError(
            f"{job.solver.name} diverged: NaN or infinite values; the noise of the scan may be far too low, see `sigma`"
        )
    return Part.of(index, values, solution, A.calls.images - before, time.perf_counter() - began)


def solve(job: Job, index: slice, seed: int, on_step: OnStep, how: How = reconstructed) -> Part:
    """Solve one batch; where it fails, each of its slices alone, and those that fail are empty and noted. A coupled
    stack fails as a whole: its slices alone would be another reconstruction. Where memory ends, halves are solved.

    Args:
        how: what is done with the slices.

    Raises:
        ValueError, ArithmeticError, RuntimeError: a batch that is all there is, or a stack that must not be parted.
        torch.OutOfMemoryError, MemoryError: there is no memory for one slice.
    """
    size = index.stop - index.start
    whole = job.scan.volumetric or job.solver.couples
    try:
        return how(job, index, seed, on_step)
    except (*BAD_DATA, MemoryError) as error:
        if no_memory(error):
            if whole or size == 1:
                raise
            log.warning("no memory for %d slices at once, so in halves; --batch %d avoids it", size, size - size // 2)
            middle = index.start + size - size // 2
            halves = slice(index.start, middle), slice(middle, index.stop)
            return joined([solve(job, half, seed, on_step, how) for half in halves])
        if whole or job.stop - job.start == 1 or isinstance(error, MemoryError):
            raise
        if size > 1:
            return joined([solve(job, slice(i, i + 1), seed, on_step, how) for i in range(index.start, index.stop)])
        return Part(index.start, index.stop, job.empty(), failed={index.start: error})


def no_memory(error: BaseException) -> bool:
    """Tell whether memory was short: of the GPU, or of the CPU, of which torch says it in words alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
