"""Locks: two runs do not write one output, and what a dead run left is told from what a living one is at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Busy(ValueError):
    """Another run is at work there."""


@contextmanager
def held(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, in a folder that exists, for the time of the block; it is gone afterwards.

    The lock ends with the process, however that ends. Where the file system, or Windows, knows no locks, none is held.

    Args:
        what: the output, for the message.
        wait: for the other run to end, instead of an error.

    Raises:
        Busy: another run holds it.
    """
    descriptor = taken(path, wait)
    if descriptor is None:
        raise Busy(f"{what}: another run of medrecon is writing there; wait for it, or choose another output")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who opened it meanwhile finds that it is gone
        os.close(descriptor)


def taken(path: Path, wait: bool = False, sure: bool = False) -> int | None:
    """Take the lock; the descriptor that holds it until it is closed, or None where another run has it.

    Raises:
        OSError: there is no such folder; or, where it must be `sure`, the file system has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _lock(descriptor, wait, sure):
                os.close(descriptor)
                return None
        except BaseException:
            os.close(descriptor)
            raise
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)  # its holder has removed it


def _lock(descriptor: int, wait: bool, sure: bool) -> bool:
    """Whether no other run has it."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except ImportError as error:  # Windows
        if sure:
            raise OSError("no locks here") from error
    except OSError:  # a file system without locks
        if sure:
            raise
    return True
