"""Simultaneous multi-slice: slices excited together and encoded by coils and by a phase from line to line.

CAIPIRINHA: Breuer et al., MRM 53 (2005) 684-691; blipped EPI: Setsompop et al., MRM 67 (2012) 1210-1224.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.operators.base import LinearOperator, common_items
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask


class SimultaneousMultiSlice(LinearOperator):
    """x (..., S, H, W), the slices excited together, to their common data y = sum_s P_s A_s x_s, shaped like A_s's.

    Args:
        slices: A_s of each slice, all to data of one shape; they differ in the coil maps.
        phases: P_s, factors complex (S, ...) whose other axes broadcast to the last ones of the data: (S, W) is one for
            each phase-encoding line, (S, n_samples) of a trajectory. `caipirinha` makes them; None: all 1.

    Raises:
        ValueError: no slice, slices whose images or data differ in shape, phases that do not fit or are not finite.
    """

    def __init__(self, slices: Sequence[LinearOperator], phases: Tensor | None = None) -> None:
        if not slices:
            raise ValueError("SimultaneousMultiSlice: needs at least one slice")
        first = slices[0]
        for index, A in enumerate(slices):
            same = A.in_shape == first.in_shape and A.out_shape == first.out_shape
            if not (same and A.in_dtype == first.in_dtype and A.out_dtype == first.out_dtype):
                raise ValueError(f"SimultaneousMultiSlice: slice {index} is {A!r}, slice 0 {first!r}")
        self.slices = tuple(slices)
        self.phases = torch.ones(len(slices), 1, dtype=torch.complex64) if phases is None else phases
        self.in_shape, self.out_shape = (len(slices), *first.in_shape), first.out_shape
        self.in_dtype, self.out_dtype = first.in_dtype, first.out_dtype
        self.items = common_items(*self.slices)
        self._check_phases()

    @classmethod
    def cartesian(cls, maps: Tensor, mask: Tensor, shift: float | None = None) -> SimultaneousMultiSlice:
        """Combine Cartesian slices: maps (S, C, H, W), one mask (H, W), `caipirinha` of that shift (1 / S)."""
        if maps.ndim != 4:
            raise ValueError(f"SimultaneousMultiSlice: maps must be (S, C, H, W), got {tuple(maps.shape)}")
        return cls([CartesianMRI(m, mask) for m in maps], caipirinha(len(maps), maps.shape[-1], shift))

    def _check_phases(self) -> None:
        count, *axes = self.phases.shape
        data = self.out_shape[len(self.out_shape) - len(axes) :]
        fits = len(axes) <= len(self.out_shape) and all(n in (1, m) for n, m in zip(axes, data, strict=True))
        if count != len(self.slices) or not fits or not bool(torch.isfinite(self.phases.abs()).all()):
            raise ValueError(
                f"SimultaneousMultiSlice: phases {tuple(self.phases.shape)} must be finite, one set for each of the "
                f"{len(self.slices)} slices, and broadcast to data {self.out_shape}"
            )

    def _forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros((len(x), *self.out_shape))
        phases = self.phases.to(x.device, x.dtype)
        for index, A in enumerate(self.slices):
            y += phases[index] * A.forward_batch(x[:, index])
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        phases = self.phases.to(y.device, y.dtype).conj()
        return torch.stack([A.adjoint_batch(phases[i] * y) for i, A in enumerate(self.slices)], dim=1)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        maps = torch.stack([birdcage_maps(4, (8, 9), g) for _ in range(2)])
        yield cls.cartesian(maps, torch.ones(8, 9))
        maps = torch.stack([birdcage_maps(3, (7, 6), g) for _ in range(3)])
        yield cls.cartesian(maps, random_mask((7, 6), 1.5, 2, g), shift=0.25)


def caipirinha(slices: int, columns: int, shift: float | None = None) -> Tensor:
    """Return phases (S, W) that move slice s by s * `shift` fields of view along phase encoding; 1 at zero frequency.

    exp(-2 pi i s shift n), n = -W//2 ...: s * shift * W pixels towards higher columns. With lines skipped R-fold in
    the plane, the aliases of a slice are 1 / R apart already, and 1 / (S R) is what spreads the slices best.

    Args:
        shift: fraction of the field of view, 1 / S by default.

    Raises:
        ValueError: fewer than one slice or column, or a shift that is not finite.
    """
    step = 1 / slices if shift is None and slices > 0 else shift
    if slices < 1 or columns < 1 or step is None or not math.isfinite(step):
        raise ValueError(f"caipirinha: {slices} slices of {columns} columns, shift {shift}")
    line = torch.arange(columns, dtype=torch.float64) - columns // 2
    return torch.exp(-2j * math.pi * step * torch.arange(slices, dtype=torch.float64)[:, None] * line)
