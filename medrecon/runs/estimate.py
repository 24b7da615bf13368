"""How long a run will take on this machine, and how much memory: told by its middle batch, begun or solved here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch

from medrecon.core.memory import peak
from medrecon.numerics.threads import cores, on_threads
from medrecon.pipeline.choose import settable
from medrecon.pipeline.solve import reconstructed
from medrecon.runs.task import Work
from medrecon.solvers.base import Progress

ENOUGH = 10.0
"""Seconds after which a batch is left, once its pace is known."""
SHORT = 2.0
"""A batch of fewer seconds is solved twice: the first time loads and compiles what the others find ready."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: wall time of the whole of it.
        memory: bytes at most, all processes together.
        device_memory: bytes of a GPU at most, each process.
    """

    seconds: float
    memory: int
    device_memory: int = 0


@dataclass
class Pace:
    """What a solver's steps tell of its time.

    Attributes:
        limit: seconds after which it is stopped.
    """

    limit: float = math.inf
    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    latest: float = 0.0
    step: int = 0
    steps: int = 0
    stopped: bool = False

    def __call__(self, p: Progress) -> bool:
        self.latest = time.perf_counter() - self.began
        self.first = self.first or self.latest
        self.step, self.steps = p.step, p.steps
        self.stopped = p.step > 1 and p.step < p.steps and self.latest > self.limit
        return self.stopped

    def until(self, step: int) -> float:
        """Return the seconds until the end of a step."""
        return self.first + (step - 1) * (self.latest - self.first) / max(1, self.step - 1)


def estimate(work: Work, workers: int = 1) -> Estimate:
    """Estimate what a run takes: a batch is solved, or begun and its pace taken.

    A solver that ends where it converges is given one slice to the end: as many steps as that took are expected of all.

    Args:
        workers: processes that share this machine.

    Raises:
        Exception: as `solve`.
    """
    on_threads(max(1, cores() // workers))
    batches = work.batches()
    middle = batches[len(batches) // 2]
    seconds, pace = _timed(work, middle, ENOUGH)
    once = 0.0
    if pace.stopped:
        ends = work.how is reconstructed and any(f.name == "tolerance" for f in settable(type(work.job.solver)))
        alone = slice(middle.start, middle.start + 1)
        seconds = pace.until(_timed(work, alone)[1].step if ends else pace.steps)
    elif seconds < SHORT:
        again, _ = _timed(work, middle)
        seconds, once = again, seconds - again
    share = (middle.stop - middle.start) / (work.job.stop - work.job.start)
    rounds = max(1 / share / workers, 1.0)
    device = torch.cuda.max_memory_allocated() if work.request.device.startswith("cuda") else 0
    return Estimate(max(once, 0.0) + seconds * rounds, workers * peak(), device)


def _timed(work: Work, index: slice, limit: float = math.inf) -> tuple[float, Pace]:
    """The seconds that some items take, or their pace where that is longer than `limit`."""
    pace = Pace(limit)
    work.solve(index, pace)
    return time.perf_counter() - pace.began, pace
