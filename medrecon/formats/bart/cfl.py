"""BART's .cfl files: an array as column-major complex64, its dimensions in a text header .hdr beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core import atomic

DIMENSIONS = (
    "READ",
    "PHS1",
    "PHS2",
    "COIL",
    "MAPS",
    "TE",
    "COEFF",
    "COEFF2",
    "ITER",
    "CSHIFT",
    "TIME",
    "TIME2",
    "LEVEL",
    "SLICE",
    "AVG",
    "BATCH",
)
"""What BART's 16 dimensions mean to its MRI tools."""
READ, PHS1, PHS2, COIL, SLICE = (DIMENSIONS.index(name) for name in ("READ", "PHS1", "PHS2", "COIL", "SLICE"))
FIRST_LINE = "# Dimensions"
CREATOR = "# Creator\nmedrecon\n"
LONGEST = 2**16
"""Characters of a header that are looked at."""
NUMBER = re.compile("0*[1-9][0-9]{0,17}")


def pair(path: str | Path) -> tuple[Path, Path]:
    """Return the data and the header file of a name with or without .cfl or .hdr."""
    path = Path(path)
    base = str(path.with_suffix("") if path.suffix in (".cfl", ".hdr") else path)
    return Path(base + ".cfl"), Path(base + ".hdr")


def is_cfl(path: Path) -> bool:
    """Tell whether this is one file of a pair, by the header's first line."""
    header = pair(path)[1]
    if path.suffix not in (".cfl", ".hdr") or not path.is_file() or not header.is_file():
        return False
    with header.open("rb") as file:
        return file.read(len(FIRST_LINE)) == FIRST_LINE.encode()


def read_cfl(path: str | Path) -> NDArray[np.complex64]:
    """Read an array with its 16 axes, READ first, mapped from disk: what is used of it is read.

    Raises:
        FileNotFoundError: a file of the pair is missing.
        ValueError: the header has no dimensions, or the data are not as long as it says.
    """
    data, header = pair(path)
    for file in (data, header):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a BART array is a pair of .cfl and .hdr")
    shape = _dimensions(header)
    expected, found = 8 * math.prod(shape), data.stat().st_size
    if found != expected:
        raise ValueError(
            f"{data}: {found} bytes, but the dimensions {_brief(shape)} of {header.name} need {expected}; "
            f"truncated, or a header of another file?"
        )
    array: NDArray[np.complex64] = np.memmap(data, np.dtype("<c8"), "r", shape=shape, order="F")
    return array


def write_cfl(array: NDArray[Any], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write an array of up to 16 axes, in BART's order, in single precision; both files or none.

    Returns:
        The path of the .cfl.

    Raises:
        FileExistsError: one of the two exists and `overwrite` is off.
        ValueError: more than 16 axes, or an empty array.
    """
    return write_all({Path(path): array}, overwrite=overwrite)


def left_by_another(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the pairs NAME_SUFFIX beside the array NAME that an earlier export left, and that it does not replace.

    They would be taken for parts of the new one: coil maps of another scan.

    Raises:
        FileExistsError: medrecon did not write one of them.
    """
    found = []
    for suffix in suffixes:
        data, header = pair(path.with_name(path.stem + suffix + ".cfl"))
        there = [file for file in (data, header) if file.exists()]
        if there and not (header.is_file() and header.read_bytes()[:LONGEST].endswith(CREATOR.encode())):
            raise FileExistsError(
                f"{there[0]}: would be taken for a part of {path.name}, and medrecon did not write it; move it away, "
                "or choose another name"
            )
        found += there
    return found


def write_all(
    arrays: Mapping[Path, NDArray[Any]],
    *,
    overwrite: bool = False,
    beside: Mapping[Path, str] | None = None,
    stale: Sequence[Path] = (),
) -> Path:
    """Write arrays by name as `write_cfl`, and texts, all of them or none; return the path of the first .cfl.

    Args:
        stale: files of an earlier output, which go as these come.

    Raises:
        FileExistsError, ValueError: as `write_cfl`.
    """
    files: dict[Path, NDArray[Any] | str] = {}
    for path, array in arrays.items():
        data, header = pair(path)
        if array.ndim > len(DIMENSIONS) or not array.size:
            limit = len(DIMENSIONS)
            raise ValueError(f"{data}: BART takes 1 to {limit} axes and no empty array, got shape {array.shape}")
        shape = (*array.shape, *[1] * (len(DIMENSIONS) - array.ndim))
        files[data] = array
        files[header] = f"{FIRST_LINE}\n{' '.join(map(str, shape))}\n{CREATOR}"
    files |= beside or {}
    with atomic.files(*files, overwrite=overwrite, stale=stale) as made:
        for place, content in zip(made, files.values(), strict=True):
            if isinstance(content, str):
                place.write_text(content, encoding="utf-8")
            else:
                _write_values(place, content)
    return next(iter(files))


def _write_values(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        for part in array.T if array.ndim > 1 else array[None]:  # the last axis is the slowest one on disk
            file.write(np.ascontiguousarray(part, dtype="<c8").data)


def _dimensions(header: Path) -> tuple[int, ...]:
    with header.open("rb") as file:
        lines = file.read(LONGEST).decode("latin-1").splitlines()
    words = lines[lines.index(FIRST_LINE) + 1].split() if FIRST_LINE in lines[:-1] else []
    if not words or len(words) > len(DIMENSIONS) or not all(NUMBER.fullmatch(word) for word in words):
        raise ValueError(f"{header}: expected '{FIRST_LINE}' and a line of up to {len(DIMENSIONS)} numbers > 0")
    return tuple(map(int, words + ["1"] * (len(DIMENSIONS) - len(words))))


def _brief(shape: tuple[int, ...]) -> str:
    """The named dimensions above 1."""
    return ", ".join(f"{name} {n}" for name, n in zip(DIMENSIONS, shape, strict=True) if n > 1) or "1"
