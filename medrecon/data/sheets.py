"""PNG sheets: square slices of one width stacked along the rows, and the table that says whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrecon.core.plain_text import read_table

COLUMNS = ("sheet", "frame", "source", "subject")
SMALL, DENSEST = 1 << 26, 50
"""Bytes of pixels that any sheet may have, and those for each byte of its file: real images compress 2 to 10 times."""


def index(folder: Path) -> list[dict[str, str]]:
    """Read index.tsv.

    Raises:
        FileNotFoundError: none in the folder.
        ValueError: a line lacks something, or names a file outside the folder.
    """
    path = folder / "index.tsv"
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: a sheet folder needs it (columns sheet, frame, source, subject)")
    rows = read_table(path, COLUMNS, numbers=("frame",))
    if not rows:
        raise ValueError(f"{path}: lists no frame")
    for number, row in enumerate(rows, 2):
        if not (folder / row["sheet"]).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}: line {number}: {row['sheet']!r} lies outside the folder")
    return rows


def frames(path: Path) -> NDArray[np.generic]:
    """Read a sheet (N * W, W) of grey values as (N, W, W), in its own type.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no PNG of grey values, damaged, of another shape, or more pixels than its file can justify.
    """
    from PIL.PngImagePlugin import PngImageFile  # not Image.open, whose limit is one for the whole process

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sheet")
    try:
        with PngImageFile(path) as image:
            (width, height), mode = image.size, image.mode
            bound = max(SMALL, DENSEST * path.stat().st_size)
            if 2 * width * height > bound:
                raise ValueError(f"{width} x {height} pixels would need more than the {bound} bytes its size justifies")
            image.verify()  # the checksums, which reading alone leaves out
        with PngImageFile(path) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise ValueError(f"{path}: damaged, or not a PNG sheet ({error})") from error
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu":
        raise ValueError(f"{path}: expected whole grey values, got mode {mode}")
    if height % width:
        raise ValueError(f"{path}: height {height} is not a multiple of width {width}")
    if pixels.max() > np.iinfo(np.int16).max or pixels.min() < np.iinfo(np.int16).min:
        raise ValueError(f"{path}: values up to {pixels.max()}; sheets hold 16 bits with a sign, up to 32767")
    return pixels.reshape(-1, width, width)
