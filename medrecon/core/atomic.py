"""Outputs appear whole or not at all, and what belongs together appears together.

All is written into a folder beside the output and synced, and one rename commits it (`core/stage.py`). Where an output
must not be written is in `core/place.py`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medrecon.core.lock import held
from medrecon.core.place import refuse, refuse_folder
from medrecon.core.stage import CLAIM, GONE, NEW, PREFIX, clear, commit, stage_of, staged, sync_all

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
        stages = {parent: stack.enter_context(staged(parent / names[parent][0])) for parent in names}
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
            commit(stages[parent], names[parent][::-1])


@contextmanager
def claimed(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other runs from beginning the same output during the block, long before it is written.

    Args:
        wait: for the other run, instead of an error.

    Raises:
        Busy: another run has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    with held(stage_of(path).with_suffix(CLAIM), str(path), wait=wait):
        yield


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
