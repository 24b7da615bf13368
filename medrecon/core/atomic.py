"""Outputs appear whole or not at all, and what belongs together appears together.

All is written into a folder `.partial-*` beside the output and synced. One rename inside it commits, then what was
written moves to its places. A run that dies before the commit has changed nothing; the next run that writes beside it
removes its rest. After the commit the next run finishes the moves.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medrecon.core.lock import Busy, held, taken

log = logging.getLogger(__name__)

PREFIX, LOCK, CLAIM = ".partial-", "lock", ".claim"
NEW, COMMITTED, OLD = "new", "committed", "old"
GONE = ".gone"
"""Within what is committed, names of files that are taken away with it."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def file(path: Path, *, overwrite: bool = False, beside: Mapping[Path, str] | None = None) -> Iterator[Path]:
    """Give a temporary path of the same name; it becomes `path` when the block ends without an exception.

    Args:
        beside: texts of files that belong to it, and appear with it.

    Raises:
        FileExistsError: `path` exists and `overwrite` is off, or it is a folder.
        Busy: another run is writing it.
        OSError: it could not be written; names `path` where the disk is full.
    """
    texts = beside or {}
    with files(path, *texts, overwrite=overwrite) as (made, *others):
        write_texts(others, texts)
        yield made


@contextmanager
def files(*paths: Path, overwrite: bool = False, stale: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Give temporary paths of the same names; they become `paths`, the first of them last, when the block ends.

    Args:
        stale: files in the same folder that belong to an earlier output; they are taken away in the same commit.

    Raises:
        FileExistsError, Busy, OSError: as `file`, of any of them.
    """
    with outputs(paths, lambda: refuse((*paths, *stale), overwrite), stale) as made:
        yield made


@contextmanager
def folder(
    path: Path, pattern: str, *, overwrite: bool = False, beside: Mapping[Path, str] | None = None
) -> Iterator[Path]:
    """Give a temporary folder; it becomes `path` when the block ends without an exception.

    An existing folder is only ever replaced when all it holds are files whose names match `pattern`, so that
    overwriting cannot delete anything but an earlier output. An empty folder counts as free.

    Args:
        beside: as `file`.

    Raises:
        FileExistsError: `path` exists and `overwrite` is off, or it holds other things.
        Busy, OSError: as `file`.
    """
    texts = beside or {}

    def check() -> None:
        refuse_folder(path, pattern, overwrite)
        refuse(texts, overwrite)

    with outputs((path, *texts), check) as (made, *others):
        made.mkdir()
        write_texts(others, texts)
        yield made


def write_texts(paths: Sequence[Path], texts: Mapping[Path, str]) -> None:
    """Write the texts, one after the other, to these paths."""
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")


@contextmanager
def outputs(paths: Sequence[Path], check: Callable[[], None], stale: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Give temporary paths for files or folders; they become `paths`, the first of them last, when the block ends.

    A link stays a link: what it leads to is written.

    Args:
        check: raises where they must not be written; called at the beginning, and again before they are.
        stale: as `files`.

    Raises:
        Busy, OSError: as `file`.
    """
    check()
    places = [Path(os.path.realpath(path)) if path.is_symlink() else path for path in paths]
    names: dict[Path, list[str]] = {}
    for place in places:
        names.setdefault(place.parent, []).append(place.name)
    with ExitStack() as stack, named(paths[0]):
        stages = {parent: stack.enter_context(_stage(parent / names[parent][0])) for parent in names}
        made = [stages[place.parent] / NEW / place.name for place in places]
        yield made
        for item in made:
            sync_all(item)
        check()
        for item in stale:
            gone = stages[item.parent] / NEW / GONE
            gone.mkdir(exist_ok=True)
            (gone / item.name).touch()
        for parent in reversed(names):
            stage = stages[parent]
            os.replace(stage / NEW, stage / COMMITTED)
            sync(stage)
            _move(stage, parent, names[parent][::-1])


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other runs from beginning the same output during the block, long before it is written.

    Raises:
        Busy: another run has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    with held(path.parent / (_stage_name(path) + CLAIM), str(path)):
        yield


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


@contextmanager
def _stage(target: Path) -> Iterator[Path]:
    """The folder beside `target` that is written into, locked; cleared before and after."""
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    clear(parent)
    stage = parent / _stage_name(target)
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


def _stage_name(target: Path) -> str:
    return PREFIX + hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


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


def final(path: Path) -> Path:
    """Return where a temporary path, or one inside it, will be: what a message names. Other paths are as they are."""
    parts = path.parts
    at = next((i for i, part in enumerate(parts) if part.startswith(PREFIX)), None)
    if at is None or parts[at + 1 : at + 2] not in ((NEW,), (COMMITTED,)):
        return path
    return Path(*parts[:at], *parts[at + 2 :])


KEPT = "nothing was written, what was there before is kept. Make space first"


@contextmanager
def named(path: Path, state: str = KEPT) -> Iterator[None]:
    """Say of a full disk what could not be written, and in which state it is; of other errors, no temporary path.

    Raises:
        OSError: with the name.
    """
    try:
        yield
    except OSError as error:
        temporary = PREFIX in str(error)
        if error.errno not in FULL and temporary and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if error.errno not in FULL or (str(path) in str(error) and not temporary):
            raise
        raise OSError(error.errno, f"{path}: {error.strerror}; {state}") from error


def refuse(paths: Sequence[Path] | Mapping[Path, str], overwrite: bool) -> None:
    """Refuse files that are there.

    Raises:
        FileExistsError: one of them exists and `overwrite` is off, or is a folder.
    """
    for path in paths:
        if path.is_dir():
            raise FileExistsError(f"{path}: is a folder, and a file is to be written there")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path}: exists already; choose another name or give --overwrite (overwrite=True)")


def refuse_folder(path: Path, pattern: str, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it is empty, or may be replaced and holds files of `pattern` only.

    Raises:
        FileExistsError: it must not be replaced.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path}: is a file, and a folder is to be written there")
    items = list(path.iterdir())
    if items and not overwrite:
        raise FileExistsError(f"{path}: exists already; choose another name or give --overwrite (overwrite=True)")
    foreign = [item.name for item in items if item.is_dir() or not item.match(pattern)]
    if foreign:
        raise FileExistsError(
            f"{path}: holds {foreign[0]!r}, which medrecon did not write; --overwrite would delete it. "
            "Choose another folder"
        )


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
