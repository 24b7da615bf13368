"""Dominant eigenvector of many small Hermitian matrices at once: one per pixel, for coil maps."""

from __future__ import annotations

import torch
from torch import Tensor

_SQUARINGS = 8
"""At most: 256 power iterations, as many as SigPy's ESPIRiT does 2.5 times over."""
_PURE = 1e-3
"""1 - tr(B^2) of a matrix of trace 1 below which its square is of rank one to float32."""


def dominant_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit eigenvectors (n, C) of the largest eigenvalues (n,) of positive semidefinite matrices (n, C, C).

    Repeated squaring, B <- B^2 / tr B^2: doubles the power iterations at each step. tr B^2 of a matrix of trace 1
    tells how near B is to rank one, so a matrix leaves as soon as it is done; most need 4 squarings. Zero matrices
    give zero vectors. The phase of a vector is arbitrary.
    """
    vectors = matrices.new_zeros(matrices.shape[:2])
    left = torch.arange(len(matrices), device=matrices.device)
    B = matrices / _expand(_trace(matrices))
    for step in range(_SQUARINGS):
        B = B @ B
        purity = _trace(B)
        B /= _expand(purity)
        done = purity > 1 - _PURE if step < _SQUARINGS - 1 else torch.ones_like(purity, dtype=torch.bool)
        vectors[left[done]] = _largest_column(B[done])
        left, B = left[~done], B[~done]
        if not len(left):
            break
    # One power iteration with the matrix itself: its length is the eigenvalue, and rounding is polished away.
    x = (matrices @ _unit(vectors)[..., None])[..., 0]
    return _unit(x), torch.linalg.vector_norm(x, dim=-1)


def _trace(B: Tensor) -> Tensor:
    return B.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def _expand(scale: Tensor) -> Tensor:
    return scale.clamp_min(torch.finfo(scale.dtype).tiny)[:, None, None]


def _unit(x: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp_min(torch.finfo(length.dtype).tiny)


def _largest_column(B: Tensor) -> Tensor:
    """Of B = v v^H the column v conj(v_j) with the largest |v_j|."""
    j = B.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    return B[torch.arange(len(B), device=B.device), :, j]
