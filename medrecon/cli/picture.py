"""Pictures that commands write beside their result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon.cli.options import UsageError
from medrecon.cli.show import check_free, note

if TYPE_CHECKING:
    from medrecon.core.stack import Stack


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


def check_preview(path: Path | None, output: str, overwrite: bool, inputs: Iterable[Path]) -> None:
    """Refuse a preview as `check_picture`, and one in the folder of the result, which holds that alone.

    Raises:
        UsageError, OSError: as `check_picture`.
    """
    if path is None:
        return
    if Path(output).absolute() in path.absolute().parents:
        raise UsageError(f"--preview {path}: lies in the output {output}, a folder of images; write it beside that")
    check_picture("--preview", path, overwrite, inputs)


def write_preview(path: Path | None, stack: Stack, report: dict[str, Any], overwrite: bool) -> None:
    """Write the preview that was asked for: solver, chi^2/m, and which slices failed, above some of the slices."""
    if path is None:
        return
    from medrecon.core import atomic
    from medrecon.quality.preview import preview

    title = f"{report['solver']}, chi^2/m {report['chi2']:.3g}"
    if failed := report.get("failed"):
        title += f"; failed and empty: slices {', '.join(failed)}"
    with atomic.file(path, overwrite=overwrite) as made:
        preview(stack, made, title=title, first=report["slices"][0])
    note(f"wrote {path}")
