"""Data consistency: proximal steps whitened by the noise, their weight read off the residual."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.draw import Draw, white
from medrecon.numerics.linalg import averaged, cg, expand, power_norms, summed
from medrecon.operators.algebra import whiten
from medrecon.operators.base import LinearOperator
from medrecon.operators.normal import common_level, normal
from medrecon.operators.repeated import Repeated

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
        self.iterations, self.tolerance = iterations, tolerance
        self._set(A, y)
        # Two Hutchinson probes, the same for every item, so that a batch equals single runs.
        g = torch.Generator().manual_seed(0)
        probe = torch.randn((2, 1, *A.in_shape), dtype=A.in_dtype, generator=g).to(y.data.device)
        squares = [self.whitened(p.expand(len(y.data), *A.in_shape)).abs().square().flatten(1) for p in probe]
        self.trace = torch.stack([summed(square, 1) for square in squares]).mean(0).clamp_min(1e-30)

    def _set(self, A: LinearOperator, y: Measurement) -> None:
        self.A, self.y, self.ndim = A, y, len(A.in_shape)
        self.whitened, self.data = whiten(A, y.root), y.root * y.data
        self.level, self.normal = common_level(A, y.precision), normal(A, y.precision)

    def repeated(self, count: int) -> DataConsistency:
        """Return that of `count` batches in one, one after another: the trajectories of a run."""
        if count == 1:
            return self
        other = copy(self)
        other._set(Repeated(self.A, count), self.y.repeated(count))
        other.trace = self.trace.repeat(count)
        return other

    def chi2(self, projection: Tensor) -> Tensor:
        """Return chi^2/m (N,) of a forward projection."""
        return self.y.chi2(projection)

    @property
    def parts(self) -> int:
        """How many real numbers a sample is; each has its share of the variance 1 / W."""
        return 2 if self.data.is_complex() else 1

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient of -log p(y | x), x without error: A^H W (A x - y), twice that of complex data, whose
        real and imaginary parts have half the variance each. (N, *in_shape)"""
        return self.parts * self.whitened.adjoint(self.whitened(x) - self.data)

    def score(self, v: Tensor, tau: Tensor) -> Tensor:
        """Return the gradient of log p(y | v) by v (N, *in_shape), the image being v to a standard deviation tau.

        A^H (A tau^2 A^H + W^-1)^-1 (y - A v), which is (prox(v, tau) - v) / tau^2; twice that of complex data.
        """
        square = tau.square() if tau.ndim > 1 else expand(tau.square(), self.ndim)
        return self.parts * (self.prox(v, tau) - v) / square

    def curvature(self, deviation: Tensor) -> Tensor:
        """Return the largest eigenvalue (N,) of tau A^H W A tau, `deviation` tau (N, *in_shape): of the Hessian of
        -log p(y | v + tau n) by white n. Gradient steps below twice its inverse do not diverge, whatever the noise."""
        start = torch.randn((1, *self.A.in_shape), dtype=self.A.in_dtype, generator=torch.Generator().manual_seed(0))
        gram = lambda n: deviation * self.whitened.gram(deviation * n)  # noqa: E731
        return power_norms(gram, start.to(self.data).expand(deviation.shape), self.ndim).square()

    def length(self, step: float, deviation: Tensor) -> Tensor:
        """Return the length (N,) of a gradient step, `step` / curvature; 0 where nothing was measured."""
        curvature = self.curvature(deviation)
        return torch.where(curvature > 0, step / curvature, 0)

    def drawn(self, v: Tensor, tau: Tensor, draw: Draw, size: float = 1.0) -> Tensor:
        """Draw from p(x | v, y), x being v to a standard deviation tau (N, *in_shape) or (N,): the proximal point of v
        and y, each moved by noise of its own size (perturb and optimise, Papandreou and Yuille, NIPS 2010).

        Args:
            size: of the deviation from the mean, in units of that of p.
        """
        moved, missing = copy(self), self.y.precision <= 0
        noise = torch.where(missing, 0, size * white(draw, self.data))
        moved.data = self.data + noise
        moved.y = Measurement(self.y.data + torch.where(missing, 0, noise / self.y.root), self.y.precision)
        return moved.prox(v + size * (tau if tau.ndim > 1 else expand(tau, self.ndim)) * white(draw, v), tau)

    def deviation(self, projection: Tensor, expected: Tensor, share: float = 1.0) -> Tensor:
        """Return tau (N, *in_shape) from the projection of v and the standard deviation expected of v; 0 at the
        noise.

        Args:
            share: tau^2 is that much of it, which makes a proximal point that of data with this share of their
                precision (`Anneal`).
        """
        explained = (self.chi2(projection) - 1).clamp_min(0) * self.y.measured / self.trace
        mean = averaged(expected.square().flatten(1), 1).clamp_min(1e-30)
        return expected * expand((share * (explained / mean).clamp_max(SHARE)).sqrt(), self.ndim)

    def prox(self, v: Tensor, tau: Tensor | float, projection: Tensor | None = None) -> Tensor:
        """Return the proximal point x (N, *in_shape); an item with tau = 0 is returned as it is.

        A tau of every pixel takes CG on s in x = v + tau s. One number, or one an item, (N,), is left to the operator,
        whose own `prox` may have a closed form, where all samples have the same precision.

        Args:
            tau: standard deviation of v: (N, *in_shape), (N,) or a number.
            projection: A v, if it is known.
        """
        if isinstance(tau, float) or tau.ndim == 1:
            return self._prox_white(v, torch.as_tensor(tau, dtype=v.real.dtype, device=v.device).expand(len(v)))
        seen = self.A(v) if projection is None else projection
        misfit = tau * self.A.adjoint(self.y.precision * (self.y.data - seen))
        matrix = lambda s: torch.addcmul(s, tau, self.normal(tau * s))  # noqa: E731
        return v + tau * cg(matrix, misfit, ndim=self.ndim, iterations=self.iterations, tolerance=self.tolerance).x

    def _prox_white(self, v: Tensor, tau: Tensor) -> Tensor:
        """The proximal point of a white error of v, deviation tau (N,)."""
        if self.level is None:
            return self.prox(v, expand(tau, self.ndim).expand(v.shape))
        weight = 1 / (tau.square() * self.level).clamp_min(1e-30)
        measured = self.y.data * (self.y.precision > 0)
        x = self.A.prox(v, measured, weight, iterations=self.iterations, tolerance=self.tolerance)
        return torch.where(expand(tau > 0, self.ndim), x, v)

    def to_discrepancy(self, v: Tensor, expected: Tensor, target: float = 1.0, rounds: int = 6) -> Tensor:
        """Return the proximal point nearest v with chi^2/m = target (Morozov), by bisection of log tau up to
        `expected`: where the model errs, chi^2/m = target may be out of reach, and to go on for it would spoil the
        image.

        An item already below the target is returned as it is.
        """
        projection = self.A(v)
        above = self.chi2(projection) > target
        if not bool(above.any()):
            return v
        low, high = (torch.where(above, factor, 0.0) for factor in (0.003, 1.0))
        scaled = lambda share: self.prox(v, expected * expand(share, self.ndim), projection)  # noqa: E731
        for _ in range(rounds):
            middle = (low * high).sqrt()
            too_far = self.chi2(self.A(scaled(middle))) > target
            low, high = torch.where(too_far, middle, low), torch.where(too_far, high, middle)
        return scaled(high)


def unweighted(A: LinearOperator, y: Measurement) -> Measurement:
    """Return the data with one precision, |A|^-2: whitened, A has norm 1. Published methods know no other noise."""
    flat = (y.precision > 0).to(y.precision.dtype) / max(A.norm(device=y.data.device), 1e-30) ** 2
    return Measurement(y.data, flat)
