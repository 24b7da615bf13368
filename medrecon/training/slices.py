"""Training slices in memory, with their subjects; random crops with augmentation."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Slices:
    """data (N, H, W) int16 in stored units; value = stored * slope + intercept; one subject name a slice."""

    data: Tensor
    subjects: tuple[str, ...]
    slope: float = 1.0
    intercept: float = 0.0

    def values(self, index: Tensor | slice) -> Tensor:
        return self.data[index].float() * self.slope + self.intercept

    def weights(self) -> Tensor:
        """Sampling weights: a subject with n slices counts as sqrt(n), so long series do not dominate."""
        counts = {s: self.subjects.count(s) for s in set(self.subjects)}
        return torch.tensor([counts[s] ** -0.5 for s in self.subjects], dtype=torch.float64)


def read_sheets(folder: Path, slope: float, intercept: float) -> Slices:
    """Slices from PNG sheets: N square slices stacked along the rows, listed in `index.tsv`.

    Raises:
        FileNotFoundError: no `index.tsv` in the folder.
        ValueError: a sheet's height is not a multiple of its width.
    """
    from PIL import Image

    index = folder / "index.tsv"
    if not index.exists():
        raise FileNotFoundError(f"{index} not found: a sheet folder needs it (columns sheet, frame, source, subject)")
    with index.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    stacks, subjects = [], []
    for sheet in sorted({row["sheet"] for row in rows}):
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(folder / sheet) as image:
            pixels = np.asarray(image).astype(np.int16)
        if pixels.shape[0] % pixels.shape[1]:
            raise ValueError(f"{folder / sheet}: height {pixels.shape[0]} is not a multiple of width {pixels.shape[1]}")
        stacks.append(pixels.reshape(-1, pixels.shape[1], pixels.shape[1]))
        named = {int(r["frame"]): f"{r['source']}/{r['subject']}" for r in rows if r["sheet"] == sheet}
        subjects += [named.get(frame, sheet) for frame in range(len(stacks[-1]))]
    return Slices(torch.from_numpy(np.concatenate(stacks)), tuple(subjects), slope, intercept)


def crops(slices: Slices, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Random crops (count, size, size): flips, quarter turns, and a zoom of 0.75..1.33 on every other one."""
    chosen = torch.multinomial(slices.weights(), count, replacement=True, generator=generator)
    return torch.stack([_crop(slices, int(i), size, generator) for i in chosen])


def _crop(slices: Slices, index: int, size: int, generator: torch.Generator) -> Tensor:
    draw = torch.rand(6, generator=generator).tolist()
    height, width = slices.data.shape[-2:]
    side = round(size * 2 ** (0.83 * (draw[1] - 0.5))) if draw[0] < 0.5 else size
    side = min(side, height, width)
    top, left = int(draw[2] * (height - side + 1)), int(draw[3] * (width - side + 1))
    crop = slices.values(slice(index, index + 1))[:, top : top + side, left : left + side]
    if side != size:
        crop = torch.nn.functional.interpolate(crop[None], (size, size), mode="bilinear", antialias=True)[0]
    if draw[4] < 0.5:
        crop = crop.flip(-1)
    return torch.rot90(crop[0], int(draw[5] * 4))
