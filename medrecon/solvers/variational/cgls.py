"""CGLS: conjugate gradients on the weighted least-squares problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import dot, expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit


@dataclass(frozen=True)
class CGLS(Solver):
    """min |W^(1/2) (A x - y)|^2 by CGLS (Hestenes & Stiefel 1952) from x = 0; the early stop is the regularisation.

    It semi-converges: past the noise level the image gets worse, so each slice stops at the discrepancy.

    Attributes:
        iterations: at most.
        discrepancy: a slice stops once its chi^2/m is at most this; 0 runs all iterations.
    """

    iterations: int = 50
    discrepancy: float = 1.0

    name: ClassVar[str] = "cgls"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "weighted least squares by conjugate gradients, stopped at the noise level"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        monitor, n_in, n_out = Monitor(y, self.iterations, on_step), len(A.in_shape), len(A.out_shape)
        projection = torch.zeros_like(y.data)
        direction = gradient = A.adjoint(y.precision * y.data)
        size, tiny = dot(gradient, gradient, n_in), torch.finfo(torch.float32).tiny
        x = torch.zeros_like(gradient)
        active = (y.chi2(projection) > self.discrepancy) & (size > 0)
        while len(monitor.residuals) < self.iterations and bool(active.any()):
            seen = A(direction)
            curvature = dot(y.root * seen, y.root * seen, n_out).clamp_min(tiny)
            step = torch.where(active, size / curvature, 0)
            x = x + expand(step, n_in) * direction
            projection = projection + expand(step, n_out) * seen
            gradient = A.adjoint(y.precision * (y.data - projection))
            new = dot(gradient, gradient, n_in)
            direction = gradient + expand(new / size.clamp_min(tiny), n_in) * direction
            size = new
            active = active & (y.chi2(projection) > self.discrepancy) & (size > 0)
            if monitor(projection):
                break
        return monitor.solution(A, x, not bool(active.any()), iterations=len(monitor.residuals))

    @classmethod
    def examples(cls) -> Iterator[CGLS]:
        yield cls(iterations=10)
