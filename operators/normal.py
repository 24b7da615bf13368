"""The normal operator of weighted data, A^H diag(precision) A, by the cheapest route the operator offers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator


def normal(A: LinearOperator, precision: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function x -> A^H diag(precision) A x, for x (B, *in_shape).

    c * A.gram(x) where every sample of an item that A gives has the same precision c: no samples are formed, which
    saves shifts of the coils' k-space in Cartesian MRI, and gridding in non-Cartesian.

    Args:
        precision: real, >= 0, broadcasts to (B, *out_shape); what it is where A gives no samples does not matter.
    """
    level = common_level(A, precision)
    if level is None:
        return lambda x: A.adjoint(precision * A(x))
    return lambda x: expand(level, len(A.in_shape)) * A.gram(x)


def common_level(A: LinearOperator, precision: Tensor) -> Tensor | None:
    """Return the one precision of all samples of each item, (B or 1,); None where an item has several."""
    given = precision[(None,) * (len(A.out_shape) + 1 - precision.ndim)]
    sampled = torch.ones((), dtype=torch.bool) if A.sampled is None else A.sampled
    sampled = sampled.to(given.device)
    high = torch.where(sampled, given, 0).flatten(1).amax(1)
    low = torch.where(sampled, given, torch.inf).flatten(1).amin(1)
    return high if bool((low == high).all()) else None
