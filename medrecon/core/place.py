"""Where an output is to be written: whether it can be, found out before hours of work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path


def check_place(path: Path, need: float = 0, inputs: Iterable[Path] = ()) -> None:
    """Check the name of an output, that its folder can be written to, that there is room, and that it is no input.

    Args:
        need: bytes that it takes at least.
        inputs: what it is made of, files or folders.

    Raises:
        OSError: names the output: a name too long, no permission, a file where a folder is to be, a full disk.
        FileExistsError: as `refuse_inputs`.
    """
    refuse_inputs(path, inputs)
    place = Path(os.path.realpath(path))
    folder = place.parent
    while not os.path.exists(folder):  # Path.exists fails where the name is too long
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: {folder} is a file, and a folder is needed there")
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    for part in place.relative_to(folder).parts:
        if len(os.fsencode(part)) > longest:
            raise OSError(f"{path}: the name {part[:40]}... is longer than the {longest} bytes its disk allows")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no permission to write in {folder}")
    free = shutil.disk_usage(folder).free
    if free < max(need, 1):
        raise OSError(f"{path}: needs at least {need / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free; make space first")


def refuse_inputs(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that would replace what it is made of, under whichever name or through whichever link.

    An output may lie in a folder of inputs; what is there under its name, or where its link leads, may be replaced if
    it is a file of the output's kind.

    Raises:
        FileExistsError: it is an input, a folder that holds one, or leads to a file of another kind in one.
    """
    if not os.path.exists(path):
        return
    place, is_folder = Path(os.path.realpath(path)), os.path.isdir(path)
    for source in inputs:
        if not os.path.exists(source):
            continue
        origin = Path(os.path.realpath(source))
        if os.path.samefile(path, source):
            raise FileExistsError(f"{path}: is the input itself ({source}); choose another name for the output")
        if is_folder and any(os.path.samefile(path, parent) for parent in origin.parents):
            raise FileExistsError(f"{path}: holds the input {source}; choose another folder for the output")
        inside = os.path.isdir(source) and any(os.path.samefile(source, parent) for parent in place.parents)
        if inside and not is_folder and place.suffix.lower() != path.suffix.lower():
            raise FileExistsError(f"{path}: leads to {place}, a file in the input {source}; choose another name")


def refuse(paths: Iterable[Path] | Mapping[Path, str], overwrite: bool) -> None:
    """Refuse files that are there.

    Raises:
        FileExistsError: one of them exists and `overwrite` is off, or is no file, nor a link to one.
    """
    for path in paths:
        if path.is_dir():
            raise FileExistsError(f"{path}: is a folder, and a file is to be written there")
        if path.is_symlink() and os.path.islink(os.path.realpath(path)):
            raise FileExistsError(f"{path}: is a link that leads to itself; remove it, or choose another name")
        if path.exists() and not path.is_file():
            raise FileExistsError(f"{path}: is a pipe, a socket or a device, and a file is to be written there")
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
    foreign = [item.name for item in items if item.is_dir() or item.is_symlink() or not item.match(pattern)]
    if foreign:
        raise FileExistsError(
            f"{path}: holds {foreign[0]!r}, which medrecon did not write; --overwrite would delete it. "
            "Choose another folder"
        )
