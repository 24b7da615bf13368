"""Training slices in memory, with their subjects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.data import sheets
from medrecon.training.images.phases import Phases


@dataclass(frozen=True)
class Slices:
    """data (N, H, W) int16 in stored units; value = stored * slope + intercept; one subject name a slice.

    With `phases` they are magnitudes of complex images. `origins` says of every slice where it is from: its file, or
    source/subject/detail of a sheet; left out, that is its subject.
    """

    data: Tensor
    subjects: tuple[str, ...]
    slope: float = 1.0
    intercept: float = 0.0
    phases: Phases | None = None
    origins: tuple[str, ...] = ()

    def values(self, index: Tensor | slice | int) -> Tensor:
        return self.data[index].float() * self.slope + self.intercept

    def images(self, index: slice) -> Tensor:
        """`values`, or complex images: every slice has a phase of its own, always the same."""
        x = self.values(index)
        if self.phases is None:
            return x
        chosen = range(len(self.data))[index]
        whole = x.shape[-1]
        return torch.cat(
            [self.phases(m[None], whole, torch.Generator().manual_seed(i)) for i, m in zip(chosen, x, strict=True)]
        )

    @cached_property
    def weights(self) -> Tensor:
        """Sampling weights: a subject with n slices counts as sqrt(n), so long series do not dominate."""
        counts = Counter(self.subjects)
        return torch.tensor([counts[s] ** -0.5 for s in self.subjects], dtype=torch.float64)

    def labels(self, rules: Mapping[str, str]) -> Tensor:
        """Class (N,) of every slice: which of the regular expressions, from 1, is the first to be found in its origin;
        0 where none is."""
        patterns = [re.compile(rule) for rule in rules.values()]
        first = lambda origin: next((i for i, p in enumerate(patterns, 1) if p.search(origin)), 0)  # noqa: E731
        return torch.tensor([first(origin) for origin in self.origins or self.subjects])


def read_sheets(folder: Path, slope: float, intercept: float) -> Slices:
    """Slices from PNG sheets: N square slices stacked along the rows, listed in `index.tsv`.

    Raises:
        FileNotFoundError: no `index.tsv` in the folder, or a sheet is missing.
        ValueError: a line of the index or a sheet that is damaged or not as it should be.
    """
    rows = sheets.index(folder)
    stacks: list[np.ndarray] = []
    subjects: list[str] = []
    origins: list[str] = []
    for sheet in sorted({row["sheet"] for row in rows}):
        stacks.append(sheets.frames(folder / sheet).astype(np.int16))
        own = {int(r["frame"]): r for r in rows if r["sheet"] == sheet}
        for frame in range(len(stacks[-1])):
            row = own.get(frame)
            subjects.append(f"{row['source']}/{row['subject']}" if row else sheet)
            origins.append(f"{subjects[-1]}/{row.get('detail') or ''}" if row else sheet)
    return Slices(torch.from_numpy(np.concatenate(stacks)), tuple(subjects), slope, intercept, origins=tuple(origins))
