"""Where an output is to be written: whether it can be, found out before hours of work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def check_place(path: Path, need: float = 0) -> None:
    """Check the name of an output, that its folder can be written to, and that there is room.

    Args:
        need: bytes that it takes at least.

    Raises:
        OSError: names the output: a name too long, no permission, a file where a folder is to be, a full disk.
    """
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
