"""A projector as a sparse matrix: one product for a whole batch, and float64 too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.numerics.threads import compiled

FEW = 4
"""Columns up to which one by one is faster than eight with empty ones."""


class SparseMatrix:
    """A projector in the sense of `projector.Projector`: scipy CSR (V * D, pixels), applied on the CPU by compiled
    loops on all threads.

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
    """M x for x (B, ...), by eight columns at a time, and by single ones where few are left."""
    from medrecon.operators.ct import matrix_kernels as kernels

    host = x.detach().to("cpu", torch.float64 if x.dtype == torch.float64 else torch.float32).resolve_neg().numpy()
    rows = np.ascontiguousarray(host.reshape(len(host), matrix.shape[1]))
    out = np.empty((len(host), matrix.shape[0]), dtype=rows.dtype)
    table = matrix.indptr, matrix.indices, matrix.data
    for start in range(0, len(host), kernels.LANES):
        part = rows[start : start + kernels.LANES]
        if len(part) <= FEW:
            for row, product in zip(part, out[start:], strict=False):
                compiled(kernels, "single")(*table, row, product)
            continue
        columns = np.zeros((matrix.shape[1], kernels.LANES), dtype=rows.dtype)
        columns[:, : len(part)] = part.T
        products = np.empty((matrix.shape[0], kernels.LANES), dtype=rows.dtype)
        compiled(kernels, "eight")(*table, columns.reshape(-1), products)
        out[start : start + kernels.LANES] = products[:, : len(part)].T
    return torch.from_numpy(out.reshape(len(host), *shape)).to(x.device, x.dtype)
