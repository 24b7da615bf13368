"""Results on stdout: pure JSON for machines, a table for people."""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medrecon.core.place import check_place, refuse
from medrecon.core.stage import clear


@runtime_checkable
class Array(Protocol):
    """A tensor or a NumPy array, without importing either."""

    def tolist(self) -> Any: ...


def plain(value: Any) -> Any:
    """Return the same with JSON types only; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return plain(value.tolist()) if isinstance(value, Array) else str(value)


def show_json(result: Any) -> None:
    """Print a result as JSON, and nothing else."""
    sys.stdout.write(json.dumps(plain(result), indent=2, allow_nan=False) + "\n")


def number(value: Any) -> str:
    """Write a value for people; long lists are cut, the JSON has them whole."""
    if isinstance(value, list | tuple) and len(value) > 6:
        return f"[{number(value[0])}, ... {len(value)} in all ..., {number(value[-1])}]"
    if isinstance(value, list | tuple) and any(isinstance(v, list | tuple) for v in value):
        return f"[{', '.join(map(number, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def show_table(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print one line a row; `columns` (all keys of the first row by default) in this order."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = list(columns) or list(rows[0]) if rows else list(columns)
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(Text(name))  # a Text, since "[a.u.]" in a str is taken for a style
    for row in rows:
        table.add_row(*(Text(number(row.get(name))) for name in names))
    console = Console(file=sys.stdout)
    # Not on a terminal (a log, a pipe): never wrap or cut.
    Console(file=sys.stdout, width=console.width if console.is_terminal else 200).print(table)


def show_tree(result: dict[str, Any], indent: str = "") -> None:
    """Print nested values, one a line."""
    for key, value in result.items():
        if isinstance(value, dict):
            sys.stdout.write(clean(f"{indent}{key}:\n"))
            show_tree(value, indent + "  ")
        else:
            sys.stdout.write(clean(f"{indent}{key}: {number(value)}\n"))


def note(text: str) -> None:
    """Print a line for people, on stderr."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def clean(text: str) -> str:
    """Return a text that is safe to print: without the user and password of an address, and with control characters,
    which a file's name may hold and a terminal would obey, as escapes."""
    text = re.sub(r"(\w+://)[^/\s@]*@", r"\1", text)
    text = re.sub(
        r"([?&][^=&\s]*(?:token|key|secret|password|signature|credential)[^=&\s]*=)[^&\s]+", r"\1...", text, flags=re.I
    )
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else ascii(c)[1:-1] for c in text
    )


def check_free(path: Path, overwrite: bool, need: float = 0, inputs: Iterable[Path] = ()) -> None:
    """Refuse an existing output, and one that cannot be written, before hours of work, not after.

    Args:
        need: bytes that it takes at least.
        inputs: what it is made of.

    Raises:
        FileExistsError: `path` is there, is not an empty folder, and overwrite is off; it is no file or folder; it is
            an input, or holds one.
        OSError: a name too long, no permission, no room.
    """
    check_place(path, need, inputs)
    if path.parent.is_dir():
        clear(path.parent)  # a run that died may have finished it
    if not path.is_dir():
        refuse((path,), True)
    used = any(path.iterdir()) if path.is_dir() else path.exists()
    if used and not overwrite:
        raise FileExistsError(f"{path} exists; give another name or --overwrite")


def check_folder(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse a folder to begin, or to go on, in that cannot be written, is none, or is an input.

    Raises:
        OSError: as `check_free`, or a file is there.
    """
    check_place(path, 0, inputs)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: is a file, and a folder is to be written there")
