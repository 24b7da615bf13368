"""Run: a task with the batches of it that are done; what is missing is solved here or by workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrecon.core.progress import OnProgress, silent
from medrecon.core.scan import Scan
from medrecon.core.stack import Stack
from medrecon.pipeline.part import Part, joined
from medrecon.pipeline.run import report_of
from medrecon.runs.kept import Kept, discard
from medrecon.runs.pools import Pool
from medrecon.runs.shard import Shard
from medrecon.runs.task import Task, Work
from medrecon.runs.worker import solve_there

log = logging.getLogger(__name__)

Stop = Callable[[], bool]
"""Asked after every batch whether to stop."""


class Stopped(Exception):
    """The run was asked to stop, and has; what it has solved is kept."""


class Run:
    """A task and the folder in which its finished batches are kept.

    Attributes:
        batches: those of this shard.
    """

    def __init__(
        self, task: Task, folder: Path, *, scan: Scan | None = None, shard: Shard | None = None, anew: bool = False
    ) -> None:
        """Check all, and begin the folder or go on with it; see `Work.of` and `Kept`."""
        self.task, self.work = task, Work.of(task, scan)
        self.kept = Kept(folder, self.work.record, anew=anew)
        self.batches = (shard or Shard()).of(self.work.batches())
        self.found = self.work.slices(self._sound())

    def solve(self, pool: Pool | None = None, on_progress: OnProgress = silent, stop: Stop = lambda: False) -> None:
        """Solve the batches of this shard that are missing, or in which slices failed.

        Args:
            pool: makes workers; none: here, one batch after the other.

        Raises:
            Stopped: as asked, with what is kept.
            RuntimeError: the workers died, whatever was tried.
            Exception: as `reconstruct`.
        """
        todo = [index for index in self.batches if not self.kept.sound(index)]
        for index in todo:
            self.kept.drop(index)
        if pool is not None:
            self._spread(todo, pool, on_progress, stop)
            return
        for index in todo:
            self.work.keep(index, self.kept, on_progress)
            on_progress(*self.work.job.far(index.stop))
            if stop() and index != todo[-1]:
                raise Stopped(self.state())

    def _spread(self, todo: list[slice], pool: Pool, on_progress: OnProgress, stop: Stop) -> None:
        """Let workers solve; where some die the others' batches are kept, and the rest is tried again."""
        while todo:
            try:
                with pool() as executor:
                    self._submit(todo, executor, on_progress, stop)
            except BrokenExecutor as error:
                left = [index for index in todo if not self.kept.holds(index)]
                if len(left) == len(todo):
                    raise RuntimeError(
                        f"the workers died before one of them had solved a batch ({error}); where memory is short take "
                        "fewer --workers or a smaller --batch"
                    ) from error
                log.warning("a worker died: %d of %d batches are tried again", len(left), len(todo))
                todo = left
            else:
                return

    def _submit(self, todo: list[slice], executor: Executor, on_progress: OnProgress, stop: Stop) -> None:
        folder = self.kept.folder.resolve()
        futures: list[Future[None]] = [executor.submit(solve_there, self.task, index, folder) for index in todo]
        try:
            for future in as_completed(futures):
                future.result()
                on_progress(self.work.slices(self._held()), self.work.slices(self.work.batches()))
                if stop() and not all(f.done() for f in futures):
                    raise Stopped
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, Stopped):
                for future in as_completed([f for f in futures if not f.cancelled()]):
                    future.exception()
                raise Stopped(self.state()) from None
            raise

    @property
    def complete(self) -> bool:
        """Whether all batches are there, those of other shards too."""
        return len(self._held()) == len(self.work.batches())

    def state(self) -> str:
        """Say how much is kept, and where."""
        held, total = self.work.slices(self._held()), self.work.slices(self.work.batches())
        return f"{held} of {total} slices are kept in {self.kept.folder}"

    def tidy(self) -> None:
        """Remove the folder where nothing in it is worth keeping."""
        if not self._sound():
            discard(self.kept.folder)

    def _facts(self, index: slice) -> Part:
        part = self.kept.load(index)
        return replace(part, values=part.values[:0].clone())

    def _held(self) -> list[slice]:
        return [index for index in self.work.batches() if self.kept.holds(index)]

    def _sound(self) -> list[slice]:
        return [index for index in self._held() if self.kept.sound(index)]

    def result(self) -> tuple[Stack, dict[str, Any]]:
        """Return the volume of all batches, read slice by slice from what is kept, and the report.

        Raises:
            FileNotFoundError, ValueError: a batch that is missing or damaged.
            Exception: what the first slice raised, if all of them failed.
        """
        told = joined([self._facts(index) for index in self.work.batches()])
        try:
            report = report_of(self.work.job, self.work.request, self.work.size, told)
        except Exception:
            self.tidy()
            raise
        return self.work.job.stack(Slices(self).__getitem__), report


class Slices:
    """The slices of a run, of which the latest batch is held."""

    def __init__(self, run: Run) -> None:
        self.run, self.latest = run, Part(0, 0, torch.empty(0))

    def __getitem__(self, z: int) -> Tensor:
        work = self.run.work
        item = work.job.start + z // work.job.slices_each
        if not self.latest.start <= item < self.latest.stop:
            index = next(batch for batch in work.batches() if batch.start <= item < batch.stop)
            self.latest = self.run.kept.load(index)
        values: Tensor = self.latest.values.flatten(0, -3)
        return values[z - (self.latest.start - work.job.start) * work.job.slices_each]
