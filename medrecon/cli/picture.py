"""Pictures that commands write beside their result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medrecon.cli.options import UsageError
from medrecon.cli.show import check_free


def check_picture(option: str, path: Path, overwrite: bool, inputs: Iterable[Path]) -> None:
    """Refuse a picture that cannot be written, before anything is computed.

    Raises:
        UsageError: its name is not that of a PNG; names the option.
        OSError: as `check_free`.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{option} {path}: a picture ends in .png")
    if path.is_dir():
        raise FileExistsError(f"{path}: is a folder, and a picture is to be written there")
    check_free(path, overwrite, need=1e6, inputs=inputs)


def labels(paths: Sequence[Path]) -> list[str]:
    """Return short names that tell files apart: the last parts of their paths, as few as do it.

    Raises:
        UsageError: a file is named twice.
    """
    resolved = [path.absolute() for path in paths]
    if twice := next((path for i, path in enumerate(paths) if resolved[i] in resolved[:i]), None):
        raise UsageError(f"{twice}: is named twice")
    for count in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join(path.parts[-count:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different parts")
