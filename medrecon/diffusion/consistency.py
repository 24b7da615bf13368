"""Data consistency: proximal steps whitened by the noise, their weight read off the residual."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import cg, expand
from medrecon.operators.algebra import whiten
from medrecon.operators.base import LinearOperator

SHARE = 0.5
"""Chosen on validation slices: for CT 0.1 to 0.4 end alike, MRI at 4x gains from 0.2 to 0.5 and nothing beyond."""


class DataConsistency:
    """Proximal steps for y = A x + n with the precision W of every sample; everything per batch item.

    prox(v, tau) = argmin_x |W^(1/2) (A x - y)|^2 + |(x - v) / tau|^2, the posterior mean when v is known to a
    standard deviation tau, one a pixel. Its size is read off v's own misfit, E chi^2(v) = m + tau^2 trace(A^H W A) as
    if tau were one number, but tau^2 is at most `SHARE` of the squared error expected of v, which is not white: it sits
    in edges and texture.
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
        squares = [self.whitened(p.expand(len(y.data), *A.in_shape)).abs().square().flatten(1).sum(1) for p in probe]
        self.trace = torch.stack(squares).mean(0).clamp_min(1e-30)

    def chi2(self, projection: Tensor) -> Tensor:
        """chi^2/m (B,) of a forward projection."""
        return self.y.chi2(projection)

    def deviation(self, projection: Tensor, expected: Tensor) -> Tensor:
        """tau (B, *in_shape) from the projection of v and the standard deviation expected of v; 0 at the noise."""
        explained = (self.chi2(projection) - 1).clamp_min(0) * self.measured / self.trace
        mean = expected.square().flatten(1).mean(1).clamp_min(1e-30)
        return expected * expand((explained / mean).clamp_max(SHARE).sqrt(), self.ndim)

    def prox(self, v: Tensor, tau: Tensor) -> Tensor:
        """x (B, *in_shape) from v by CG on s in x = v + tau s; an item with tau = 0 is returned as it is."""
        A = self.whitened
        misfit = tau * A.adjoint(self.data - A(v))
        s = cg(
            lambda s: tau * A.gram(tau * s) + s,
            misfit,
            ndim=self.ndim,
            iterations=self.iterations,
            tolerance=self.tolerance,
        ).x
        return v + tau * s

    def to_discrepancy(self, v: Tensor, expected: Tensor, target: float = 1.0, rounds: int = 6) -> Tensor:
        """The proximal point nearest v with chi^2/m = target (Morozov), by bisection of log tau up to `expected`: where
        the model errs, chi^2/m = target may be out of reach, and to go on for it would spoil the image.

        An item already below the target is returned as it is.
        """
        above = self.chi2(self.A(v)) > target
        low, high = (torch.where(above, factor, 0.0) for factor in (0.003, 1.0))
        scaled = lambda share: self.prox(v, expected * expand(share, self.ndim))  # noqa: E731
        for _ in range(rounds):
            middle = (low * high).sqrt()
            too_far = self.chi2(self.A(scaled(middle))) > target
            low, high = torch.where(too_far, middle, low), torch.where(too_far, high, middle)
        return scaled(high)
