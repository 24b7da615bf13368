"""A worker: a process that is told tasks and batches, and keeps what it solves. Nothing large travels."""

from __future__ import annotations

import functools
import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch

from medrecon.core.progress import silent
from medrecon.numerics.threads import on_threads
from medrecon.runs.kept import Kept
from medrecon.runs.task import Task, Work

ONE = threading.Lock()
"""A process does one batch at a time, whatever threads its pool has: an operator counts its calls."""


def solve_there(task: Task, index: slice, folder: Path) -> None:
    """Solve one batch in this process, and keep it in a folder that all of them see.

    Raises:
        Differs: the measurement or the prior is not what the run was begun with.
        Exception: as `solve`.
    """
    with ONE:
        work = _work(task)
        work.keep(index, Kept(folder, work.record), silent)


@functools.lru_cache(maxsize=1)
def _work(task: Task) -> Work:
    """The latest task's, which most batches are of."""
    return Work.of(task)


def begin(threads: int, counter: Synchronized[int]) -> None:
    """Prepare a process for work: its threads, its GPU; signals are for its parent, without which it ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    on_threads(threads)
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """What is half done is written nowhere, so it may end at any time."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
