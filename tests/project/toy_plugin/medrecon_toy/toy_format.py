"""A format of images: rows of numbers in a text file, slices apart by an empty line, after a line that says "toy"."""

from __future__ import annotations

from pathlib import Path

import torch

from medrecon.core.volume import Modality, Volume


def reads(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(8).strip() == b"toy"


def read(path: Path, series: str | None, modality: Modality | None) -> Volume:
    slices = path.read_text().split("\n", 1)[1].strip().split("\n\n")
    data = torch.tensor([[[float(v) for v in row.split()] for row in rows.splitlines()] for rows in slices])
    units = "HU" if modality == "CT" else "a.u."
    return Volume(data, torch.eye(4, dtype=torch.float64), units, modality or "MR")  # type: ignore[arg-type]
