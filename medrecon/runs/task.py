"""Task: a reconstruction as a few words that travel to any process, which then reads the measurement itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medrecon.core.progress import OnProgress
from medrecon.core.scan import Scan
from medrecon.pipeline.job import Job
from medrecon.pipeline.noise_map import check_single, replicated
from medrecon.pipeline.part import Part
from medrecon.pipeline.request import Options, Request
from medrecon.pipeline.run import told, usual_batch
from medrecon.pipeline.solve import How, reconstructed, solve
from medrecon.runs.kept import Kept
from medrecon.runs.record import record_of
from medrecon.solvers.base import OnStep

Load = Callable[[Path], Scan]
"""Reads a measurement; a function of a module, so that it travels by its name."""


@dataclass(frozen=True, eq=False)
class Task:
    """What to reconstruct and how.

    Attributes:
        load: reads the measurement.
        options: as of `reconstruct`, without `on_progress`.
        replicas: in place of the image the map of its noise, from so many reconstructions; see `noise_map`.
    """

    measurement: Path
    load: Load
    solver: str
    options: Options = field(default_factory=lambda: Options())
    replicas: int | None = None

    def __hash__(self) -> int:
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)


@dataclass(frozen=True, eq=False)
class Work:
    """A task that was read and checked.

    Attributes:
        size: of a batch.
        record: all that the result depends on.
        how: what is done with each.
    """

    job: Job
    request: Request
    size: int
    record: dict[str, Any]
    how: How = reconstructed

    @classmethod
    def of(cls, task: Task, scan: Scan | None = None) -> Work:
        """Check what is asked for, load the prior, find coil maps and noise.

        Args:
            scan: what `task.load` reads; read here unless it is given.

        Raises:
            ValueError, FileNotFoundError: as `reconstruct`.
        """
        request = Request(**task.options)
        job = Job.of(task.load(task.measurement) if scan is None else scan, task.solver, request)
        if task.replicas is None:
            size = usual_batch(job, request)
            return cls(job, request, size, record_of(job, request, size))
        check_single(job)
        record = {**record_of(job, request, 1), "replicas": task.replicas}
        return cls(job, request, 1, record, replicated(task.replicas))

    def batches(self) -> list[slice]:
        """Return all batches, in their order."""
        return list(self.job.batches(self.size))

    def slices(self, batches: Iterable[slice]) -> int:
        """Return how many slices batches are."""
        return sum(index.stop - index.start for index in batches) * self.job.slices_each

    def solve(self, index: slice, on_step: OnStep) -> Part:
        """Solve a batch.

        Raises:
            Exception: as `medrecon.pipeline.solve.solve`.
        """
        return solve(self.job, index, self.request.seed, on_step, self.how)

    def keep(self, index: slice, kept: Kept, on_progress: OnProgress) -> None:
        """Solve a batch and keep it.

        Raises:
            Exception: as `solve`.
        """
        kept.save(self.solve(index, told(self.job, index, on_progress)))
