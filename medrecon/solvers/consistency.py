"""Data consistency: proximal steps whitened by the noise, their weight read off the residual."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.linalg import expand
from medrecon.measurement import Measurement
from medrecon.operators.base import LinearOperator, whiten

SHARE = 0.1


class DataConsistency:
    """Proximal steps for y = A x + n with the precision W of every sample; everything per batch item.

    prox(v, tau2) = argmin_x |W^(1/2) (A x - y)|^2 + |x - v|^2 / tau2, the posterior mean when v is known to
    a variance tau2. tau2 is estimated from v's own misfit, E chi^2(v) = m + tau2 trace(A^H W A), but at most
    `SHARE` of the mean squared error expected of v: that error is not white, it sits in edges and texture, and a
    larger tau2 fits noise (D(E(truth)) of two validation slices: 1/10 of its squared error is best).
    """

    def __init__(self, A: LinearOperator, y: Measurement, iterations: int = 10, tolerance: float = 1e-4) -> None:
        self.A, self.y, self.iterations, self.tolerance = A, y, iterations, tolerance
        self.ndim = len(A.in_shape)
        self.whitened = whiten(A, y.root)
        self.data = y.root * y.data
        self.measured = (y.precision > 0).expand(y.data.shape).flatten(1).sum(1)
        # Two Hutchinson probes, the same for every item, so that a batch equals single runs.
        g = torch.Generator().manual_seed(0)
        probe = torch.randn((2, 1, *A.in_shape), dtype=A.in_dtype, generator=g).to(y.data.device)
        squares = [
            self.whitened(p.expand(len(y.data), *A.in_shape)).abs().square().flatten(1).sum(1) for p in probe
        ]
        self.trace = torch.stack(squares).mean(0).clamp_min(1e-30)

    def chi2(self, projection: Tensor) -> Tensor:
        """chi^2/m (B,) of a forward projection."""
        return self.y.chi2(projection)

    def variance(self, projection: Tensor, expected: float) -> Tensor:
        """tau2 (B,) from the projection of v and the root-mean-square error expected of v; 0 at the noise."""
        explained = (self.chi2(projection) - 1).clamp_min(0) * self.measured / self.trace
        return explained.clamp_max(SHARE * expected**2)

    def prox(self, v: Tensor, tau2: Tensor, projection: Tensor | None = None) -> Tensor:
        """x (B, *in_shape) from v; an item with tau2 = 0 is returned as it is."""
        weight = 1 / tau2.clamp_min(1e-30)
        x = self.whitened.prox(v, self.data, weight, iterations=self.iterations, tolerance=self.tolerance)
        return torch.where(expand(tau2 > 0, self.ndim), x, v)

    def to_discrepancy(self, v: Tensor, expected: float, target: float = 1.0, rounds: int = 6) -> Tensor:
        """The proximal point nearest v with chi^2/m = target (Morozov), by bisection of log tau2 up to 10 expected^2.

        An item already below the target is returned as it is.
        """
        above = self.chi2(self.A(v)) > target
        low, high = (torch.where(above, factor * expected**2, 0.0) for factor in (1e-4, 10.0))
        for _ in range(rounds):
            middle = (low * high).sqrt()
            misfit = self.chi2(self.A(self.prox(v, middle)))
            too_far = misfit > target
            low, high = torch.where(too_far, middle, low), torch.where(too_far, high, middle)
        return self.prox(v, high)
