"""Outputs appear whole or not at all: write beside the target, fsync, rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder; it becomes `path` when the block ends without an exception.

    Raises:
        FileExistsError: `path` exists and `overwrite` is off, or it is a folder.
    """
    _refuse(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".partial-{secrets.token_hex(4)}-{path.name}"  # keeps the suffix: writers look at it
    try:
        yield temporary
        sync(temporary)
        _refuse(path, overwrite)  # it may have appeared meanwhile
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder(path: Path, pattern: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it becomes `path` when the block ends without an exception.

    An existing folder is only ever replaced when all it holds are files whose names match `pattern`, so that
    overwriting cannot delete anything but an earlier output. An empty folder counts as free.

    Raises:
        FileExistsError: `path` exists and `overwrite` is off, or it holds other things.
    """
    _refuse_folder(path, pattern, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".partial-{secrets.token_hex(4)}-{path.name}"
    retired = temporary.with_name(temporary.name + "-old")
    try:
        temporary.mkdir()
        yield temporary
        for item in temporary.iterdir():
            sync(item)
        sync(temporary)
        _refuse_folder(path, pattern, overwrite)
        if path.exists():
            os.replace(path, retired)
        try:
            os.replace(temporary, path)
        except BaseException:
            if retired.exists():
                os.replace(retired, path)
            raise
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():  # never drop the old output before the new one stands
            shutil.rmtree(retired, ignore_errors=True)


def _refuse(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise FileExistsError(f"{path}: is a folder, and a file is to be written there")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already; choose another name or give --overwrite (overwrite=True)")


def _refuse_folder(path: Path, pattern: str, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path}: is a file, and a folder is to be written there")
    held = list(path.iterdir())
    if held and not overwrite:
        raise FileExistsError(f"{path}: exists already; choose another name or give --overwrite (overwrite=True)")
    foreign = [item.name for item in held if item.is_dir() or not item.match(pattern)]
    if foreign:
        raise FileExistsError(
            f"{path}: holds {foreign[0]!r}, which medrecon did not write; --overwrite would delete it. "
            "Choose another folder"
        )


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
