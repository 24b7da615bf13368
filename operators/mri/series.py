"""A dynamic series: the frames of one object, each measured in its own way (cine, perfusion, functional MRI)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask


class Series(LinearOperator):
    """x (..., T, *item) -> y (..., T, *samples): frame t by item t of A, block-diagonal over time.

    Args:
        A: an operator whose batch items are the frames: with one mask (or set of maps) for each frame, or one for all.
        frames: T.

    Raises:
        ValueError: no frame, or an A that does not take a batch of T items.
    """

    def __init__(self, A: LinearOperator, frames: int) -> None:
        if frames < 1:
            raise ValueError(f"Series: needs at least one frame, got {frames}")
        self.A, self.frames = A, frames
        self.in_shape, self.out_shape = (frames, *A.in_shape), (frames, *A.out_shape)
        self.in_dtype, self.out_dtype = A.in_dtype, A.out_dtype
        sampled = A.sampled
        if sampled is not None and len(sampled) not in (1, frames):
            raise ValueError(f"Series: {A!r} samples {len(sampled)} items, but the series has {frames} frames")

    def _each(self, apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return torch.stack([apply(series) for series in x])

    def _forward(self, x: Tensor) -> Tensor:
        return self._each(self.A.forward_batch, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._each(self.A.adjoint_batch, y)

    def _gram(self, x: Tensor) -> Tensor:
        return self._each(self.A.gram_batch, x)

    @property
    def sampled(self) -> Tensor | None:
        return None if self.A.sampled is None else self.A.sampled[None]

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        masks = torch.stack([random_mask((6, 5), 2.0, 1, g) for _ in range(3)])
        yield cls(CartesianMRI(birdcage_maps(2, (6, 5), g), masks), 3)
        each = torch.stack([birdcage_maps(2, (4, 5), g) for _ in range(2)])
        yield cls(CartesianMRI(each, random_mask((4, 5), 1.5, 1, g)), 2)
