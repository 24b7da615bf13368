"""Penalised weighted least squares with a Huber penalty: noise smoothed like a quadratic, edges kept like TV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.differences import gradient, gradient_adjoint, magnitude
from medrecon.numerics.linalg import cg, dot, expand, summed
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Huber(Solver):
    """min over x >= 0 of chi^2(x) / 2 + lambda R(x), R the sum over pixels of |grad x|, rounded below the knee d:
    |grad x|^2 / (2 d) where |grad x| < d, |grad x| - d / 2 elsewhere (Huber 1964). R -> TV for d -> 0.

    lambda = strength * pixels / (R(x) + R(x0) / 4), re-estimated at every step from the image and the least-squares
    start x0, as in `TV`; d = knee * S, S = sum x0^2 / sum x0, the level of what attenuates (about that of water in a
    body). So neither the units of the image nor the noise level of the scan change the best settings; it relies on a
    calibrated precision (chi^2/m of the truth about 1).

    FISTA (Beck & Teboulle 2009) with the diagonal majoriser A^T W A 1 + that of the penalty's half-quadratic form
    (Erdogan & Fessler 1999), restarted where the step turns against the momentum (O'Donoghue & Candes 2015).
    Needs an operator without negative entries, as projectors are.

    Args:
        strength: of the regularisation; larger is smoother.
        knee: gradient below which differences count as noise, as a fraction of S: 0.01 is about 10 HU a pixel.
        iterations: at most; each is one A and one A^T.
        tolerance: a slice is done once a step from the extrapolated point, 0 at the minimum alone, is at most this
            fraction of the image, both in the norm of the majoriser.

    Raises:
        ValueError: a setting out of its range.
    """

    strength: float = 0.3
    knee: float = 0.01
    iterations: int = 300
    tolerance: float = 2e-5

    name: ClassVar[str] = "huber"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "penalised weighted least squares with a Huber penalty, non-negative, converged"

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.knee > 0 and self.iterations >= 1 and self.tolerance >= 0):
            raise ValueError(f"{self}: needs strength > 0, knee > 0, iterations >= 1 and tolerance >= 0")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Raises TypeError for complex images."""
        if A.in_dtype.is_complex:
            raise TypeError(f"Huber: needs a real, non-negative projector, got {A!r}; use 'tv' for MRI")
        check_fit(A, y)
        n_in, n_out = len(A.in_shape), len(A.out_shape)
        monitor = Monitor(y, self.iterations, on_step)
        x = cg(lambda v: A.adjoint(y.precision * A(v)), A.adjoint(y.precision * y.data), ndim=n_in, iterations=5).x
        x = x.clamp_min(0)
        penalty = Penalty(self.knee * dot(x, x, n_in) / summed(x, x.ndim - 1).clamp_min(TINY), n_in)
        curvature = A.adjoint(y.precision * A(torch.ones_like(x)))
        seen, floor = A(x), penalty(x) / 4
        image, projection, z, z_seen = x, seen, x, seen
        momentum = torch.ones(len(x), device=x.device)
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.iterations):
            weight = expand(self._weight(x, penalty(x) + floor), n_in)
            slope, bend = penalty.derivatives(z)
            D = (curvature + weight * bend).clamp_min(TINY)
            new = (z - (A.adjoint(y.precision * (z_seen - y.data)) + weight * slope) / D).clamp_min(0)
            new_seen, move = A(new), new - z
            change = (dot(move, D * move, n_in) / dot(new, D * new, n_in).clamp_min(TINY)).sqrt()
            image = torch.where(expand(done, n_in), image, new)
            projection = torch.where(expand(done, n_out), projection, new_seen)
            done = done | (change <= self.tolerance)
            if monitor(projection) or bool(done.all()):
                break
            momentum = torch.where(dot(D * move, new - x, n_in) < 0, 1, momentum)
            following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
            beta, momentum = (momentum - 1) / following, following
            z, z_seen = new + expand(beta, n_in) * (new - x), new_seen + expand(beta, n_out) * (new_seen - seen)
            x, seen = new, new_seen
        weight = self._weight(image, penalty(image) + floor)
        return monitor.solution(A, image, bool(done.all()), weight=weight, knee=penalty.knee)

    def _weight(self, x: Tensor, total: Tensor) -> Tensor:
        """lambda of each item, (B,)."""
        return self.strength * x[0].numel() / torch.where(total > 0, total, 1)

    @classmethod
    def examples(cls) -> Iterator[Huber]:
        yield cls(iterations=30)
        yield cls(strength=0.05, knee=0.1, iterations=15)


class Penalty:
    """R(x), the sum over pixels of the Huber function of |grad x|, with a knee for each item, (B,)."""

    def __init__(self, knee: Tensor, ndim: int) -> None:
        self.knee, self.ndim = knee, ndim
        self._knee = expand(torch.where(knee > 0, knee, 1), ndim)  # 0: the image is 0

    def __call__(self, x: Tensor) -> Tensor:
        """(B, item) -> (B,)."""
        size = magnitude(gradient(x, self.ndim))
        values = torch.where(size < self._knee, size.square() / (2 * self._knee), size - self._knee / 2)
        return summed(values, values.ndim - 1)

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of R, and a diagonal that majorises its half-quadratic form there, both like x."""
        step = gradient(x, self.ndim)
        stiff = 1 / torch.maximum(magnitude(step), self._knee)
        # (a - b)^2 <= 2 a^2 + 2 b^2 for each difference a pixel takes part in: its own and those of its neighbours.
        bend = 2 * self.ndim * stiff
        for axis in range(-self.ndim, 0):
            n = x.shape[axis] - 1
            bend.narrow(axis, 1, n).add_(stiff.narrow(axis, 0, n), alpha=2)
        return gradient_adjoint(stiff * step, self.ndim), bend
