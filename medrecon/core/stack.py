"""Stack: a volume that is given slice by slice, so that one that does not fit into memory can be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medrecon.core.volume import Modality, Units, Volume


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of a volume, read as they are needed.

    Attributes:
        shape: (Z, Y, X).
        read: gives slice z, (Y, X), real or complex.
        affine, units, modality, source: as of `Volume`.
    """

    shape: tuple[int, int, int]
    read: Callable[[int], Tensor]
    affine: Tensor
    units: Units
    modality: Modality
    source: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, volume: Volume) -> Stack:
        """Return a volume in memory as a stack."""
        depth, height, width = volume.data.shape
        read = volume.data.__getitem__
        return cls((depth, height, width), read, volume.affine, volume.units, volume.modality, volume.source)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Read all slices, one after the other."""
        return map(self.read, range(len(self)))

    def whole(self) -> Volume:
        """Return the volume in memory."""
        return Volume(torch.stack(list(self)), self.affine, self.units, self.modality, self.source)
