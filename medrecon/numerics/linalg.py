"""Batched, complex-safe linear algebra on callables: conjugate gradients and the power method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]
SHORT = 1024
"""Numbers of a sum that is not parted; torch parts those of more than 32768."""


def dot(a: Tensor, b: Tensor, ndim: int) -> Tensor:
    """Return Re <a, b> over the last `ndim` axes; complex inner product, conjugate on the first."""
    if a.is_complex() and b.is_complex():  # without the imaginary part that nobody asked for
        a, b = (torch.view_as_real(v.resolve_conj()) for v in (a, b))
        return summed(a * b, ndim + 1)
    product = a.conj() * b if a.is_complex() or b.is_complex() else a * b
    return summed(product.real if product.is_complex() else product, ndim)


def summed(values: Tensor, ndim: int) -> Tensor:
    """Return the sum over the last `ndim` axes, the same to the last bit on any number of threads and in any batch.

    torch parts one long sum among its threads; many short ones it does not part.
    """
    sums = values.flatten(-ndim)
    while (length := sums.shape[-1]) > SHORT:
        whole = length // SHORT * SHORT
        short = sums[..., :whole].unflatten(-1, (-1, SHORT)).sum(-1)
        sums = torch.cat([short, sums[..., whole:].sum(-1, keepdim=True)], dim=-1)
    return sums.sum(-1)


def averaged(values: Tensor, ndim: int) -> Tensor:
    """Return the mean over the last `ndim` axes, as `summed`."""
    return summed(values, ndim) / values.shape[-ndim:].numel()


def expand(scalar: Tensor, ndim: int) -> Tensor:
    """Append `ndim` axes, so that a per-item scalar multiplies whole items."""
    return scalar.reshape(scalar.shape + (1,) * ndim)


@dataclass(frozen=True)
class CGResult:
    """x, iterations run, relative residual |b - Mx| / |b| per batch item."""

    x: Tensor
    iterations: int
    residual: Tensor


def cg(
    matrix: Apply, b: Tensor, *, ndim: int, x0: Tensor | None = None, iterations: int = 20, tolerance: float = 1e-5
) -> CGResult:
    """Solve M x = b for Hermitian positive definite M by conjugate gradients (Hestenes & Stiefel 1952).

    Args:
        matrix: x -> M x on tensors shaped like b.
        b: right-hand side (..., item), the item being the last `ndim` axes; leading axes are a batch.
        x0: start, zero by default.
        tolerance: an item is frozen once |b - M x| <= tolerance |b|; independent of its neighbours.
    """
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b - matrix(x) if x0 is not None else b.clone()
    p, rr, bb = r.clone(), dot(r, r, ndim), dot(b, b, ndim).clamp_min(torch.finfo(torch.float32).tiny)
    count = 0
    while count < iterations:
        active = rr > tolerance**2 * bb
        if not bool(active.any()):
            break
        mp = matrix(p)
        curvature = dot(p, mp, ndim)
        step = torch.where(active & (curvature > 0), rr / curvature.clamp_min(1e-38), torch.zeros_like(rr))
        x = x + expand(step, ndim) * p
        r = r - expand(step, ndim) * mp
        new = dot(r, r, ndim)
        ratio = torch.where(active, new / rr.clamp_min(1e-38), torch.zeros_like(rr))
        p = r + expand(ratio, ndim) * p
        rr = torch.where(active, new, rr)
        count += 1
    return CGResult(x, count, (rr / bb).sqrt())


def power_norm(gram: Apply, start: Tensor, iterations: int = 30) -> float:
    """Estimate the largest singular value of A from gram = A^H A by power iterations from a random `start`."""
    x = start / dot(start, start, start.ndim).sqrt()
    value = torch.zeros((), device=start.device)
    for _ in range(iterations):
        x = gram(x)
        value = dot(x, x, x.ndim).sqrt()
        if float(value) == 0.0:
            return 0.0
        x = x / value
    return math.sqrt(float(value))


def power_norms(gram: Apply, start: Tensor, ndim: int, iterations: int = 12) -> Tensor:
    """Estimate the largest singular value of each item, (B,), 3 % above what power iterations reach: safe for steps."""
    x, value = start, torch.ones(start.shape[0], dtype=start.real.dtype, device=start.device)
    for _ in range(iterations):
        x = gram(x / expand(dot(x, x, ndim).sqrt().clamp_min(1e-30), ndim))
        value = dot(x, x, ndim).sqrt()
    return 1.03 * value.sqrt().clamp_min(1e-30)
