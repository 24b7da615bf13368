"""A projector as a sparse matrix: one product for a whole batch, and float64 too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SparseMatrix:
    """A projector in the sense of `projector.Projector`: scipy CSR (V * D, pixels), applied on the CPU.

    Attributes:
        matrix: float32.
        in_shape, out_shape: (H, W) and (V, D).
    """

    def __init__(self, matrix: Any, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        self.matrix, self.in_shape, self.out_shape = matrix, in_shape, out_shape

    def forward(self, x: Tensor) -> Tensor:
        return _product(self.matrix, x, self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return _product(self._transpose, y, self.in_shape)

    def subset(self, views: Sequence[int]) -> SparseMatrix:
        rays = math.prod(self.out_shape[1:])
        rows = (np.asarray(views)[:, None] * rays + np.arange(rays)).ravel()
        return SparseMatrix(self.matrix[rows], self.in_shape, (len(views), *self.out_shape[1:]))

    @cached_property
    def _transpose(self) -> Any:
        return self.matrix.T.tocsr()


def _product(matrix: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    host = x.detach().to("cpu", torch.float64 if x.dtype == torch.float64 else torch.float32).numpy()
    columns = np.ascontiguousarray(host.reshape(len(host), matrix.shape[1]).T)
    out = np.ascontiguousarray((matrix @ columns).T).reshape(len(host), *shape)
    return torch.from_numpy(out).to(x.device, x.dtype)
