"""Compiled loops: where they may run, and on how many threads.

On all threads, but on one in a process that was forked after its parent had run them: there GNU OpenMP would end the
process at the first thread. Not where torch records operations, which would keep the numbers of one run.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, MutableMapping
from types import ModuleType
from typing import Any


def compiled(kernels: ModuleType, name: str) -> Callable[..., Any]:
    """Return a loop of a module of kernels, or its build for one thread, `<name>_serial`.

    Raises:
        RuntimeError: within a recording of torch's operations, see `check_not_recorded`.
    """
    check_not_recorded()
    loop: Callable[..., Any] = getattr(kernels, f"{name}_serial" if forked() else name)
    return loop


def check_not_recorded() -> None:
    """Raise RuntimeError where `torch.func.linearize` or `make_fx` records: it would keep wrong numbers."""
    recorder = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if recorder is not None and recorder.get_proxy_mode() is not None:
        raise RuntimeError(
            "torch.func.linearize and make_fx cannot record compiled loops: take the linear operator itself in their "
            "place, or torch.func.jvp, vjp, or torch.compile"
        )


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait for each other sleep; to be called before torch and numba are loaded.

    By default they spin, which takes the core from whoever else computes: two runs of ReSample side by side on two
    cores then take 1.5 times as long as one after the other (docs/experiments/2026-12-01-runs.md). A variable that is
    set stays so.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@functools.cache
def _first_process() -> int:
    """The process that ran a loop first; a fork inherits the answer."""
    return os.getpid()


def forked() -> bool:
    """Tell whether this process was forked after its parent ran a compiled loop."""
    return _first_process() != os.getpid()


def on_threads(count: int) -> None:
    """Let torch and compiled loops take `count` threads in this process, or as many as before if those are less."""
    import numba
    import torch

    most = torch.get_num_threads()  # before numba, whose first call raises torch's to its own
    numba.set_num_threads(min(count, numba.get_num_threads()))
    torch.set_num_threads(min(count, most))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
