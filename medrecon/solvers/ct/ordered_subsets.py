"""Ordered subsets: one pass over the views in groups, each group's step majorised, successive groups far apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.operators.views import ByViews
from medrecon.solvers.base import check_fit

Weights = Literal["precision", "rays"]
GOLDEN = (math.sqrt(5) - 1) / 2
CACHE = 2**28
"""Values of step images kept between sweeps (1 GB); beyond, a step is computed each time it is needed."""


@dataclass(frozen=True, eq=False)
class _Part:
    A: LinearOperator
    views: Tensor
    weights: Tensor
    lengths: Tensor


class OrderedSubsets:
    """x <- x + relaxation C_s A_s^T W_s (y_s - A_s x) over the subsets s, with C_s = 1 / (A_s^T W_s A_s 1).

    SART (Andersen & Kak 1984) with a subset for each view, SIRT with one subset of all. Every subset step lowers
    its own weighted residual, since C_s majorises the curvature. Rays of precision 0 have weight 0; pixels that no
    ray of a subset meets stay as they are.

    Args:
        count: of subsets, each of views spread evenly over the angles; 0, or more than there are views: one a view.
        weights: 'precision', the statistical weights; 'rays', 1 / row sums of A, for the rays that were measured.

    Raises:
        TypeError: complex images, or an operator that is no `ByViews`.
        ValueError: the measurement does not fit, or a negative count.
    """

    def __init__(self, A: LinearOperator, y: Measurement, count: int, weights: Weights) -> None:
        check_fit(A, y)
        if A.in_dtype.is_complex:
            raise TypeError(f"ordered subsets: need a real, non-negative projector, got {A!r}; MRI has 'cg-sense'")
        self.y = y
        # The whole batch, and before the subsets: the operator builds what the sweeps need, and the subsets share it.
        lengths = A(torch.ones((len(y.data), *A.in_shape), dtype=y.data.dtype, device=y.data.device))[:1]
        W = ray_weights(y, lengths, weights)
        self._parts = []
        for group in groups(A, count):
            views = torch.tensor(group, device=y.data.device)
            self._parts.append(_Part(_operator_of(A, group), views, W[:, views], lengths[:, views]))
        keep = len(self._parts) * len(W) * math.prod(A.in_shape) <= CACHE
        self._steps = [self._majorised(part) for part in self._parts] if keep else []

    def __len__(self) -> int:
        return len(self._parts)

    def _majorised(self, part: _Part) -> Tensor:
        """C_s, (B or 1, *in_shape)."""
        rays = part.weights * part.lengths
        curvature = part.A.adjoint(rays.expand(len(self.y.data), *rays.shape[1:]))[: len(rays)]
        return torch.where(curvature > 0, 1 / curvature.clamp_min(torch.finfo(curvature.dtype).tiny), 0)

    def sweep(self, x: Tensor, relaxation: float, nonnegative: bool = True, projection: Tensor | None = None) -> Tensor:
        """Every subset once, from x; where its projection A x is known, it saves that of the first subset."""
        for k, part in enumerate(self._parts):
            seen = part.A(x) if k or projection is None else projection[:, part.views]
            step = self._steps[k] if self._steps else self._majorised(part)
            x = x + relaxation * step * part.A.adjoint(part.weights * (self.y.data[:, part.views] - seen))
            x = x.clamp_min(0) if nonnegative else x
        return x


def ray_weights(y: Measurement, lengths: Tensor, kind: Weights) -> Tensor:
    """(B or 1, *out_shape): the precision, or 1 / lengths where something was measured."""
    missing = y.data.ndim - y.precision.ndim
    precision = y.precision.reshape((1,) * missing + tuple(y.precision.shape)).expand(-1, *y.data.shape[1:])
    if kind == "precision":
        return precision
    used = precision > 0
    used = used[:1] if bool((used == used[:1]).all()) else used  # one weight for the whole batch where it can be
    return torch.where(used & (lengths > 0), 1 / lengths.clamp_min(torch.finfo(lengths.dtype).tiny), 0)


def groups(A: LinearOperator, count: int) -> list[list[int]]:
    """View indices of each subset, interleaved by angle, in an order in which successive ones are far apart.

    The k-th visit is the rank of the fraction of k times the golden ratio: about 222 degrees on, over a full circle.
    """
    if count < 0:
        raise ValueError(f"ordered subsets: their number must be >= 0 (0: one for each view), got {count}")
    views = A.out_shape[0]
    count = min(count, views) or views
    order = list(range(views))
    if isinstance(A, ByViews) and A.angles is not None:
        order.sort(key=[angle % (2 * math.pi) for angle in A.angles].__getitem__)
    by_fraction = sorted(range(count), key=lambda k: k * GOLDEN % 1)
    visits = sorted(range(count), key=by_fraction.__getitem__)  # the inverse permutation: ranks
    return [sorted(order[first::count]) for first in visits]


def _operator_of(A: LinearOperator, views: list[int]) -> LinearOperator:
    if len(views) == A.out_shape[0]:
        return A
    if not isinstance(A, ByViews):
        raise TypeError(f"ordered subsets: {A!r} is no ByViews with a subset(views), as CTOperator is; take 'sirt'")
    return A.subset(views)
