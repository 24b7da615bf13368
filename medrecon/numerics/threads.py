"""Compiled loops run on all threads, but on one in a process that was forked after its parent had run them: there GNU
OpenMP would end the process at the first thread."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any


def compiled(kernels: ModuleType, name: str) -> Callable[..., Any]:
    """Return a loop of a module of kernels, or its build for one thread, `<name>_serial`."""
    loop: Callable[..., Any] = getattr(kernels, f"{name}_serial" if forked() else name)
    return loop


@functools.cache
def _first_process() -> int:
    """The process that ran a loop first; a fork inherits the answer."""
    return os.getpid()


def forked() -> bool:
    """Tell whether this process was forked after its parent ran a compiled loop."""
    return _first_process() != os.getpid()
