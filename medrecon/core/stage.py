"""A folder `.partial-*` beside an output, in which it is written, locked, and from which one rename commits it.

    new/        what is being written
    committed/  the same after the commit: it only has to be moved to its places
    .../.gone/  within both, names of files of an earlier output that are taken away with the commit
    old/        a folder that it replaces, until that is done
    lock        held by the run that is at it

A run that dies before the commit has changed nothing; one that dies after it has its moves finished by the next run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medrecon.core.lock import Busy, taken

log = logging.getLogger(__name__)

PREFIX, LOCK, CLAIM = ".partial-", "lock", ".claim"
NEW, COMMITTED, OLD, GONE = "new", "committed", "old", ".gone"


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """The folder beside `target` that is written into, locked; cleared before and after."""
    parent, stage = target.parent, stage_of(target)
    parent.mkdir(parents=True, exist_ok=True)
    clear(parent)
    descriptor = _enter(stage, target)
    try:
        _settle(stage, parent)
        (stage / NEW).mkdir()
        yield stage
    finally:
        try:
            _settle(stage, parent)
        except OSError:  # what was there is there again
            _empty(stage)
        _leave(stage)
        os.close(descriptor)


def stage_of(target: Path) -> Path:
    """Return where an output is written: beside it, under a name of its own."""
    return target.parent / (PREFIX + hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8])


def final(path: Path) -> Path:
    """Return where a temporary path, or one inside it, will be: what a message names. Other paths are as they are."""
    parts = path.parts
    at = next((i for i, part in enumerate(parts) if part.startswith(PREFIX)), None)
    if at is None or parts[at + 1 : at + 2] not in ((NEW,), (COMMITTED,)):
        return path
    return Path(*parts[:at], *parts[at + 2 :])


def commit(stage: Path, names: Sequence[str]) -> None:
    """Make what was written the output, and move it to its places, in this order."""
    os.replace(stage / NEW, stage / COMMITTED)
    sync(stage)
    _move(stage, stage.parent, names)


def _enter(stage: Path, target: Path) -> int:
    while True:
        stage.mkdir(exist_ok=True)
        try:
            descriptor = taken(stage / LOCK)
        except FileNotFoundError:  # another run has just removed the folder
            continue
        if descriptor is None:
            raise Busy(f"{target}: another run of medrecon is writing it; wait for it, or choose another output")
        return descriptor


def _leave(stage: Path) -> None:
    (stage / LOCK).unlink(missing_ok=True)
    try:
        stage.rmdir()
    except OSError:  # another run came in
        return


def _settle(stage: Path, parent: Path) -> None:
    """Finish what was committed, drop all else."""
    committed = stage / COMMITTED
    if committed.is_dir():
        since = committed.stat().st_ctime  # what was put there since is not of the dead run
        names = [item.name for item in committed.iterdir() if item.name != GONE]
        _move(stage, parent, [name for name in names if not _newer(parent / name, since)])
    _empty(stage)


def _newer(path: Path, since: float) -> bool:
    return path.exists() and path.stat().st_mtime > since


def _empty(stage: Path) -> None:
    for name in (NEW, COMMITTED, OLD):
        shutil.rmtree(stage / name, ignore_errors=True)


def _move(stage: Path, parent: Path, names: Sequence[str]) -> None:
    """What was committed to its places; a folder that is there is set aside, and put back where that fails.

    What belongs to an earlier output goes first: beside the new one it would be taken for a part of it.
    """
    committed = stage / COMMITTED
    for mark in committed.glob(f"{GONE}/*"):
        if not _newer(parent / mark.name, committed.stat().st_ctime):
            (parent / mark.name).unlink(missing_ok=True)
        mark.unlink()
    for name in names:
        new, target, old = stage / COMMITTED / name, parent / name, stage / OLD
        if not new.exists():
            continue
        if target.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        try:
            os.replace(new, target)
        except OSError:
            if old.exists() and not target.exists():
                os.replace(old, target)
            raise
    sync(parent)


def clear(parent: Path) -> None:
    """Remove what dead runs left in a folder, after finishing what they had committed."""
    for entry in [e for e in os.scandir(parent) if e.name.startswith(PREFIX)]:
        path, alone = Path(entry.path), entry.name.endswith(CLAIM)
        try:
            descriptor = taken(path if alone else path / LOCK, sure=True)
        except OSError:
            continue  # gone meanwhile, no folder of ours, or no locks here
        if descriptor is None:
            continue  # alive
        try:
            if alone:
                path.unlink(missing_ok=True)
            else:
                _settle(path, parent)
                _leave(path)
        except OSError as error:
            log.warning("%s: left by a run that died, and cannot be removed: %s", path, error)
        finally:
            os.close(descriptor)


def sync_all(path: Path) -> None:
    """Make a file, or a folder with all in it, durable."""
    if path.is_dir():
        for item in path.iterdir():
            sync_all(item)
    sync(path)


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
