"""SIRT: simultaneous iterative reconstruction, weighted and not negative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.linalg import expand
from medrecon.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, check_fit


@dataclass(frozen=True)
class SIRT:
    """x <- x + C A^T W (y - A x) from x = 0, with C = 1 / (A^T W A 1): C majorises the curvature, so that
    the weighted residual never rises (Gregor & Benson 2008; Erdogan & Fessler 1999 for general weights).

    Needs an operator without negative entries, as projectors are. Each slice stops by itself.

    Attributes:
        iterations: at most.
        weights: 'precision', the statistical weights of the data; 'rays', classical SIRT: 1 / row sums of A,
            for the rays that were measured.
        nonnegative: project on x >= 0 after each step.
        discrepancy: a slice stops once its chi^2/m is at most this; 0 runs all iterations.
    """

    iterations: int = 200
    weights: Literal["precision", "rays"] = "precision"
    nonnegative: bool = True
    discrepancy: float = 1.0

    name: ClassVar[str] = "sirt"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "weighted, non-negative SIRT, stopped at the noise level"
    needs_prior: ClassVar[bool] = False

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Raises TypeError for complex images."""
        if A.in_dtype.is_complex:
            raise TypeError(f"SIRT: needs a real, non-negative projector, got {A!r}; use 'cg-sense' for MRI")
        check_fit(A, y)
        monitor, ndim = Monitor(y, self.iterations, on_step), len(A.in_shape)
        ones = torch.ones((len(y.data), *A.in_shape), dtype=y.data.dtype, device=y.data.device)
        lengths, W = A(ones), y.precision
        if self.weights == "rays":
            W = torch.where((y.precision > 0) & (lengths > 0), 1 / lengths.clamp_min(1e-12), 0)
        curvature = A.adjoint(W * lengths)
        step = torch.where(curvature > 0, 1 / curvature.clamp_min(1e-30), 0)  # pixels that no ray meets stay 0
        x = torch.zeros((len(y.data), *A.in_shape), dtype=y.data.dtype, device=y.data.device)
        projection = torch.zeros_like(y.data)
        active = y.chi2(projection) > self.discrepancy
        while len(monitor.residuals) < self.iterations and bool(active.any()):
            update = x + step * A.adjoint(W * (y.data - projection))
            update = update.clamp_min(0) if self.nonnegative else update
            x = torch.where(expand(active, ndim), update, x)
            projection = A(x)
            active = active & (y.chi2(projection) > self.discrepancy)
            if monitor(projection):
                break
        return monitor.solution(A, x, not bool(active.any()), iterations=len(monitor.residuals))

    @classmethod
    def examples(cls) -> Iterator[SIRT]:
        yield cls(iterations=20)
        yield cls(iterations=20, weights="rays", nonnegative=False)
