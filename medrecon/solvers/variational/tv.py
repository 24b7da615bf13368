"""Total variation by the primal-dual method (Chambolle & Pock 2011), with a weight that needs no units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import cg, dot, expand, power_norms
from medrecon.operators.base import LinearOperator
from medrecon.operators.normal import normal
from medrecon.solvers.base import Monitor, OnStep, Solution, check_fit


def gradient(x: Tensor, ndim: int) -> Tensor:
    """Forward differences along the last `ndim` axes, 0 at the far border: (..., item) -> (ndim, ..., item)."""
    parts = []
    for axis in range(-ndim, 0):
        step = torch.zeros_like(x)
        n = x.shape[axis] - 1
        step.narrow(axis, 0, n).copy_(x.narrow(axis, 1, n) - x.narrow(axis, 0, n))
        parts.append(step)
    return torch.stack(parts)


def gradient_adjoint(v: Tensor, ndim: int) -> Tensor:
    """Adjoint of `gradient` (minus the divergence): (ndim, ..., item) -> (..., item)."""
    out = torch.zeros_like(v[0])
    for part, axis in zip(v, range(-ndim, 0), strict=True):
        n = part.shape[axis] - 1
        inner = part.narrow(axis, 0, n)
        out.narrow(axis, 1, n).add_(inner)
        out.narrow(axis, 0, n).sub_(inner)
    return out


def magnitude(v: Tensor) -> Tensor:
    """Isotropic length over the first axis; the complex modulus joins real and imaginary parts."""
    return v.abs().square().sum(0).sqrt()


def total_variation(x: Tensor, ndim: int) -> Tensor:
    """Isotropic TV of each item, sum over pixels of |gradient|: (B, item) -> (B,)."""
    return magnitude(gradient(x, ndim)).flatten(1).sum(1)


TINY = torch.finfo(torch.float32).tiny
FLOOR = 0.01
"""Least curvature of a pixel relative to the largest: pixels that few rays meet."""
DAMPING = 0.1
"""Share of a new estimate of lambda in each step: at once, image and lambda can chase each other in a circle."""


@dataclass(frozen=True)
class TV:
    """min over x of chi^2(x) / 2 + lambda TV(x), x >= 0 where images are real, 0 where A sees nothing.

    lambda = strength * pixels / (TV(x) + TV(x0) / 4), re-estimated at every step; x0 is the least-squares start. This
    is the most probable scale of a prior exp(-lambda TV) under a gamma hyperprior, whose share of x0 keeps lambda from
    running away to a flat image when the noise is strong. So neither the units of the image nor the noise level of
    the scan change the best `strength`; it relies on a calibrated precision (chi^2/m of the truth about 1).

    Differences are those of neighbouring pixels, along every axis of the image, whatever their pitch in mm: in a volume
    of slices thicker than its pixels a step from slice to slice costs no more than one in the plane.

    Args:
        strength: of the regularisation; larger is smoother.
        iterations: at most; each is one A and one A^H.
        tolerance: a slice is done once neither the image nor the dual field changes by more than this fraction a step.
        balance: dual over primal step size, relative to the noise and the size of the image; changes speed alone.
        relaxation: over-relaxation in [1, 2) (Condat 2013); changes speed alone.

    Raises:
        ValueError: a setting out of its range.
    """

    strength: float = 0.4
    iterations: int = 300
    tolerance: float = 5e-4
    balance: float = 2.0
    relaxation: float = 1.8

    name: ClassVar[str] = "tv"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "isotropic total variation, converged primal-dual; keeps edges, flattens texture"
    needs_prior: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.iterations >= 1 and self.balance > 0 and 1 <= self.relaxation < 2):
            raise ValueError(f"{self}: needs strength > 0, iterations >= 1, balance > 0 and 1 <= relaxation < 2")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        n_in, n_out = len(A.in_shape), len(A.out_shape)
        monitor = Monitor(y, self.iterations, on_step)
        x = self._project(_least_squares(A, y), A.support)
        seen = A(x)
        data_dual, field = y.precision * (seen - y.data), torch.zeros_like(gradient(x, n_in))
        tau, sigma, sigma_field = self._steps(A, y, x)
        image, projection, floor = x, seen, total_variation(x, n_in) / 4
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        weight = self._weight(x, floor)
        for _ in range(self.iterations):
            new = self._project(x - tau * (A.adjoint(data_dual) + gradient_adjoint(field, n_in)), A.support)
            new_seen = A(new)
            move = data_dual + sigma * (2 * new_seen - seen - y.data)
            new_dual = move * (y.precision / (y.precision + sigma))
            weight = torch.lerp(weight, self._weight(new, floor), DAMPING)
            limit = expand(weight, n_in)
            new_field = field + sigma_field * gradient(2 * new - x, n_in)
            new_field = new_field / (magnitude(new_field) / limit).clamp_min(1)
            change = torch.maximum(_change(new, x), _change(new_field.movedim(0, 1), field.movedim(0, 1)))
            image = torch.where(expand(done, n_in), image, new)
            projection = torch.where(expand(done, n_out), projection, new_seen)
            done = done | (change <= self.tolerance)
            if monitor(projection) or bool(done.all()):
                break
            x, seen = torch.lerp(x, new, self.relaxation), torch.lerp(seen, new_seen, self.relaxation)
            data_dual = torch.lerp(data_dual, new_dual, self.relaxation)
            field = torch.lerp(field, new_field, self.relaxation)
        return monitor.solution(A, image, bool(done.all()), weight=self._weight(image, floor))

    def _project(self, x: Tensor, support: Tensor | None) -> Tensor:
        x = x if x.is_complex() else x.clamp_min(0)
        return x if support is None else x * support

    def _weight(self, x: Tensor, floor: Tensor) -> Tensor:
        """lambda of each item, (B,)."""
        total = total_variation(x, x.ndim - 1) + floor
        return self.strength * x[0].numel() / torch.where(total > 0, total, 1)

    def _steps(self, A: LinearOperator, y: Measurement, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of each pixel, of each sample and of the gradient at each pixel, tau, sigma and sigma_field:
        |sigma^1/2 A tau^1/2|^2 + |sigma_field^1/2 D tau^1/2|^2 <= 1 (Pock & Chambolle 2011).

        A sample's step grows with the root of its precision, and a pixel's falls with what it adds to those: with steps
        all alike the bright rays, which say least about the object, hold up the others.
        """
        n_in, n_out = len(A.in_shape), len(A.out_shape)
        power = y.precision.expand(y.data.shape)
        total = power.flatten(1).sum(1)
        share = (power / expand(total / y.data[0].numel(), n_out).clamp_min(TINY)).sqrt()
        curvature = _curvature(A, share, x)
        mean, root = curvature.flatten(1).mean(1), curvature.sqrt()
        norm = power_norms(lambda v: A.adjoint(share * A(v / root)) / root, torch.ones_like(x), n_in)
        ratio = self.balance * total.sqrt() / dot(x, x, n_in).sqrt()
        ratio = torch.where((ratio > 0) & torch.isfinite(ratio), ratio, 1.0)
        tau = expand(mean.sqrt() / (2 * ratio * norm), n_in) / curvature
        sigma = (expand(ratio / (norm * mean.sqrt()), n_out) * share).clamp_min(TINY)
        return tau, sigma, 1 / (8 * n_in * _largest_near(tau, n_in))

    @classmethod
    def examples(cls) -> Iterator[TV]:
        yield cls(iterations=30)
        yield cls(strength=0.05, iterations=15)


def _least_squares(A: LinearOperator, y: Measurement) -> Tensor:
    """A few CG steps towards the weighted least-squares image: the start."""
    target = A.adjoint(y.precision * y.data)
    return cg(normal(A, y.precision), target, ndim=len(A.in_shape), iterations=5).x


def _change(new: Tensor, old: Tensor) -> Tensor:
    """|new - old| / |new| of each item, (B,); 0 where both are 0."""
    ndim = new.ndim - 1
    moved, size = dot(new - old, new - old, ndim), dot(new, new, ndim)
    return (moved / size.clamp_min(TINY)).sqrt()


def _curvature(A: LinearOperator, share: Tensor, x: Tensor) -> Tensor:
    """A^T share A 1, what each pixel adds to all samples, (B, item), > 0; 1 where images are complex and signs mix."""
    if x.is_complex():
        return torch.ones_like(x.real)
    curvature = A.adjoint(share * A(torch.ones_like(x))).abs()
    floor = FLOOR * curvature.flatten(1).amax(1)
    return torch.maximum(curvature, expand(torch.where(floor > 0, floor, 1), len(A.in_shape)))


def _largest_near(x: Tensor, ndim: int) -> Tensor:
    """The largest of a pixel and its next neighbour along each axis: what a forward difference there touches."""
    out = x.clone()
    for axis in range(-ndim, 0):
        n = x.shape[axis] - 1
        out.narrow(axis, 0, n).copy_(torch.maximum(out.narrow(axis, 0, n), x.narrow(axis, 1, n)))
    return out
