"""How a reconstruction is run so that it cannot be lost: kept slices, shards, workers."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from medrecon.cli.measurement import usage
from medrecon.cli.options import Model, UsageError
from medrecon.cli.progress import progress
from medrecon.cli.show import note
from medrecon.cli.signals import finishing
from medrecon.core import atomic
from medrecon.core.lock import Busy, held, taken

if TYPE_CHECKING:
    from medrecon.core.scan import Scan
    from medrecon.runs import Memo, Run, Shard, Task
    from medrecon.runs.pools import Pool


T = TypeVar("T")
LONGEST = 200
"""Bytes of a name to which an ending can still be added on every disk."""


TRIES, PAUSE = 50, 0.1
"""Of claiming an output, and seconds between them."""


class Resuming(Model):
    """Whether to go on with what is there."""

    resume: bool = True
    """go on with the slices that an earlier run of the same command has kept; --no-resume begins anew"""


class Running(Resuming):
    """On how many processes, and whether to go on with what is there."""

    workers: int = Field(1, ge=1, le=1024)
    """processes on this machine, each with its share of the cores, and one of the GPUs"""
    shard: str | None = None
    """i/n, such as 2/8: this process does every n-th batch from the i-th on, and whichever ends last writes the output;
    slurm takes i and n from the job array"""
    scheduler: str | None = None
    """of Dask, such as tcp://10.0.0.1:8786, whose workers do it; local starts some here"""

    def check(self) -> None:
        """Raises UsageError where things do not go together."""
        _ = self.part, self.pool

    @property
    def part(self) -> Shard | None:
        """The shard.

        Raises:
            UsageError: it is none, or is to begin anew, which would throw away what other shards have kept.
        """
        from medrecon.runs import Shard

        if self.shard is not None and not self.resume:
            raise UsageError("--no-resume throws away what all shards have kept: remove OUTPUT.slices before them")
        try:
            return None if self.shard is None else Shard.read(self.shard, os.environ)
        except ValueError as error:
            raise UsageError(f"--{error}") from error

    @property
    def pool(self) -> Pool | None:
        """What makes the workers; None: all is done here.

        Raises:
            UsageError: both kinds of them.
        """
        from medrecon.runs import pools

        if self.scheduler is not None and self.workers != 1:
            raise UsageError("--workers is of this machine, --scheduler of Dask; give one of them")
        if self.scheduler is not None:
            return pools.dask(self.scheduler)
        return pools.processes(self.workers) if self.workers > 1 else None


def folder_of(output: str | Path) -> Path:
    """Return where the slices of an output are kept until it is written: image.nii.gz.slices beside image.nii.gz."""
    path = Path(output) if Path(output).name else Path(os.path.abspath(output))
    name = os.fsencode(path.name)
    short = path.name if len(name) <= LONGEST else hashlib.sha256(name).hexdigest()
    return path.with_name(f"{short}.slices")


def drop_leftover(output: Path) -> None:
    """Remove what was kept for an output that was then written, by a run that was killed before it could do so."""
    if os.path.isdir(folder_of(output)):  # Path.is_dir fails where the name is too long
        from medrecon.runs import drop_finished

        with suppress(Busy), atomic.claimed(output):  # not while another run is at it
            drop_finished(folder_of(output), output)


def was_writing(output: Path) -> bool:
    """Tell whether a run was killed while it wrote this output and what belongs to it."""
    if not os.path.isdir(folder_of(output)):
        return False
    from medrecon.runs.kept import DONE

    return (folder_of(output) / DONE).is_file()


@contextmanager
def soon(output: Path) -> Iterator[None]:
    """Claim an output that shards claim for a moment as they begin: where another has it, for some seconds again.

    Raises:
        Busy: another run keeps it.
    """
    with ExitStack() as stack:
        for left in reversed(range(TRIES)):
            try:
                stack.enter_context(atomic.claimed(output))
                break
            except Busy:
                if not left:
                    raise
                time.sleep(PAUSE)
        yield


@contextmanager
def alone(output: Path, shard: Shard | None) -> Iterator[None]:
    """Keep others off: from the output, or, of a shard, from this shard.

    Raises:
        Busy: another run is writing it, or has this shard.
    """
    folder = folder_of(output)
    with ExitStack() as stack:
        if shard is None:
            stack.enter_context(atomic.claimed(output))
            for lock in folder.glob("*.lock"):
                descriptor = taken(lock)
                if descriptor is None:
                    raise Busy(f"{output}: shard {lock.stem.replace('-of-', '/')} is at work on it; wait for it")
                os.close(descriptor)
        else:
            with soon(output):  # by none but shards
                folder.mkdir(parents=True, exist_ok=True)
            lock = folder / f"{shard.number}-of-{shard.count}.lock"
            stack.enter_context(held(lock, f"{output}, shard {shard}"))
        yield


def foreseen(task: Task, scan: Scan, output: Path, running: Running, began: float) -> dict[str, Any]:
    """Return what a run would be, how long it would take and how much memory, from a part of it done here.

    Args:
        began: when the command did, by `time.perf_counter`: it has loaded and read what the run will.

    Raises:
        Differs: what is kept for this output is of another run.
    """
    from medrecon.pipeline.run import settings_of
    from medrecon.runs import Work
    from medrecon.runs.estimate import estimate
    from medrecon.runs.kept import check_record

    work = Work.of(task, scan)
    if running.resume:
        check_record(folder_of(output), work.record)
    before = time.perf_counter() - began
    found = estimate(work, running.workers)
    memory = {"memory_mb": round(found.memory / 1e6)}
    memory |= {"gpu_memory_mb": round(found.device_memory / 1e6)} if found.device_memory else {}
    return {
        "resolved": settings_of(work.job.solver),
        "class": type(work.job.solver).__name__,
        "batch": work.size,
        "estimate": {"seconds": round(before + found.seconds, 1), **memory},
    }


@contextmanager
def _turn(output: Path, shard: Shard | None) -> Iterator[bool]:
    """Tell whether it is for this process to write the output: of shards that end together one does."""
    with ExitStack() as stack:
        try:
            if shard is not None:
                stack.enter_context(soon(output))
        except Busy:
            yield False
            return
        yield folder_of(output).is_dir()


def carried_out(
    task: Task, scan: Scan, output: Path, running: Running, quiet: bool, finish: Callable[[Run], T]
) -> T | None:
    """Carry out a task, alone or with others, and write its output.

    Args:
        scan: what the task reads.
        finish: writes the output of the run that is complete; what was kept for it is removed then.

    Returns:
        What `finish` does; None where it is not for this process to write: other shards are not done, or did it.

    Raises:
        UsageError, Busy: what does not go together; another run is at it.
        KeyboardInterrupt, Ended: as asked; what is solved is kept.
    """
    from medrecon.runs import Run, discard

    shard = running.part
    with usage(), alone(output, shard):
        run = Run(task, folder_of(output), scan=scan, shard=shard, anew=not running.resume)
        _solve(run, running, quiet)
        if not run.complete:
            note(f"shard {shard} is done, others are not: {run.state()}")
            return None
        with _turn(output, shard) as mine:
            if not mine:
                note(f"shard {shard} is done, and another has written {output} or is at it")
                return None
            result = finish(run)
            discard(run.kept.folder)
            return result


@contextmanager
def kept(output: Path, record: dict[str, Any], resume: bool) -> Iterator[Memo]:
    """Claim an output and give what keeps parts of its computation until it is written; the block writes it.

    Args:
        record: JSON values, all that the parts depend on.

    Raises:
        Differs, Busy: parts of another run are kept there; another run is at it.
    """
    from medrecon.runs import Kept, Memo, discard

    with alone(output, None):
        folder = folder_of(output)
        memo = Memo(Kept(folder, record, anew=not resume))
        if memo.count:
            note(f"going on: parts kept in {folder}: {memo.count}")
        try:
            yield memo
        except BaseException:
            if not memo.count:
                discard(folder)
            raise
        discard(folder)


def _solve(run: Run, running: Running, quiet: bool) -> None:
    """Solve what is missing.

    Raises:
        KeyboardInterrupt, Ended: as asked; what is solved is kept.
    """
    if run.found:
        note(f"going on: {run.state()}")
    label = f"{'recon' if run.task.replicas is None else 'noise'} {run.task.solver}"
    try:
        with progress(label, quiet) as report, finishing("the slices at hand") as stop:
            run.solve(running.pool, report, stop)
    except BaseException:
        if running.shard is None:  # another shard may be about to keep its first slice
            run.tidy()
        raise
