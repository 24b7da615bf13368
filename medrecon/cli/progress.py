"""Progress on stderr: a bar with ETA on a terminal, plain lines elsewhere (log files, SLURM)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from medrecon.core.progress import OnProgress, silent


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class Lines:
    """Prints at most one line in `every` seconds, and one at the end."""

    def __init__(self, label: str, every: float = 5.0) -> None:
        self.label, self.every = label, every
        self.start = self.last = time.monotonic()
        self.first: tuple[float, float] | None = None  # how far it was, and when: a resumed run begins in the middle

    def __call__(self, done: float, total: int) -> None:
        now = time.monotonic()
        self.first = self.first or (done, now)
        if done < total and now - self.last < self.every:
            return
        self.last, (done0, then) = now, self.first
        left = f", {_clock((now - then) / (done - done0) * (total - done))} left" if done0 < done < total else ""
        print(f"{self.label}: {int(done)}/{total}, {_clock(now - self.start)} spent{left}", file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, quiet: bool = False) -> Iterator[OnProgress]:
    """Yield a callback (done, total) that shows how far `label` is."""
    if quiet:
        yield silent
    elif not sys.stderr.isatty():
        yield Lines(label)
    else:
        from rich import progress as rich
        from rich.console import Console

        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
        )
        with rich.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
