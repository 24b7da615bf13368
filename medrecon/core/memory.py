"""How much memory there is, asked before a computation that would need more."""

from __future__ import annotations

import os
import sys


def check_memory(need: float, what: str) -> None:
    """Check that a machine of this size can do it at all.

    Args:
        need: bytes, at least.
        what: needs them, for the message.

    Raises:
        ValueError: more than the machine has; a system that does not tell it has enough.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return
    if need > total:
        raise ValueError(f"{what}: needs {need / 1e9:.3g} GB of memory at least, and {total / 1e9:.3g} GB are here")


def peak() -> int:
    """Return the most memory that this process has had at once, in bytes; 0 where the system does not tell it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
