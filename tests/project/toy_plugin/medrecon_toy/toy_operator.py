"""An operator: the image upside down, twice as bright."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator


class ToyFlip(LinearOperator):
    """y = 2 x upside down, (H, W)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.in_shape = self.out_shape = shape
        self.in_dtype = self.out_dtype = torch.complex64

    def _forward(self, x: Tensor) -> Tensor:
        return 2 * x.flip(-2)

    def _adjoint(self, y: Tensor) -> Tensor:
        return 2 * y.flip(-2)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls((5, 3))
