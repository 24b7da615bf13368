"""Finite differences of images along all their axes, and total variation."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.numerics.linalg import summed


def gradient(x: Tensor, ndim: int) -> Tensor:
    """Return forward differences along the last `ndim` axes, 0 at the far border: (..., item) -> (ndim, ..., item)."""
    out = x.new_zeros((ndim, *x.shape))
    for k, axis in enumerate(range(-ndim, 0)):
        n = x.shape[axis] - 1
        out[k].narrow(axis, 0, n).copy_(x.narrow(axis, 1, n)).sub_(x.narrow(axis, 0, n))
    return out


def gradient_adjoint(v: Tensor, ndim: int) -> Tensor:
    """Return the adjoint of `gradient`, minus the divergence: (ndim, ..., item) -> (..., item)."""
    out = torch.zeros_like(v[0])
    for part, axis in zip(v, range(-ndim, 0), strict=True):
        n = part.shape[axis] - 1
        inner = part.narrow(axis, 0, n)
        out.narrow(axis, 1, n).add_(inner)
        out.narrow(axis, 0, n).sub_(inner)
    return out


def magnitude(v: Tensor) -> Tensor:
    """Return the isotropic length over the first axis; the complex modulus joins real and imaginary parts."""
    if v.is_complex():
        real, imaginary = torch.view_as_real(v.resolve_conj()).square().sum(0).unbind(-1)
        return (real + imaginary).sqrt_()
    return v.square().sum(0).sqrt_()


def total_variation(x: Tensor, ndim: int) -> Tensor:
    """Return the isotropic TV of each item, the sum over pixels of |gradient|: (B, item) -> (B,)."""
    return summed(magnitude(gradient(x, ndim)).flatten(1), 1)
