"""SART and OS-SART: SIRT's step on ordered subsets of the views, many times faster per pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.ct.ordered_subsets import OrderedSubsets, Weights


@dataclass(frozen=True)
class SART(Solver):
    """Sweeps over ordered subsets of the views from x = 0 (Andersen & Kak 1984; OS: Wang & Jiang 2004).

    Consistent data: converges to a solution for 0 < relaxation < 2 (Jiang & Wang 2003). Noisy data: it reaches
    the noise level within some sweeps and then circles between the subsets, unless `reduction` < 1 damps it. Each
    slice stops by itself. Needs an operator without negative entries, with `subset`.

    Args:
        iterations: sweeps over all views, at most; each costs about 1.5 of SIRT's iterations.
        subsets: of the views; 0, or more than there are views: one for each view, which is SART; 1: SIRT.
        relaxation: of every step, in (0, 2).
        reduction: factor on the relaxation after each sweep.
        weights: 'precision', the statistical weights; 'rays', classical SART: 1 / row sums of A, for the rays that
            were measured; not for low dose, where it trusts the darkest rays as much as any.
        nonnegative: project on x >= 0 after each subset.
        discrepancy: a slice stops once its chi^2/m is at most this; 0 runs all iterations.

    Raises:
        ValueError: a setting out of its range.
    """

    iterations: int = 30
    subsets: int = 10
    relaxation: float = 1.0
    reduction: float = 1.0
    weights: Weights = "precision"
    nonnegative: bool = True
    discrepancy: float = 1.0

    name: ClassVar[str] = "sart"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "SART on ordered subsets (OS-SART), non-negative, stopped at the noise level"

    def __post_init__(self) -> None:
        if not (self.iterations >= 1 and self.subsets >= 0 and 0 < self.relaxation < 2 and 0 < self.reduction <= 1):
            raise ValueError(f"{self}: needs iterations >= 1, subsets >= 0, 0 < relaxation < 2 and 0 < reduction <= 1")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Raises TypeError for complex images, and for an operator without `subset` unless subsets = 1."""
        subsets = OrderedSubsets(A, y, self.subsets, self.weights)
        monitor, ndim, relaxation = Monitor(y, self.iterations, on_step), len(A.in_shape), self.relaxation
        x = torch.zeros((len(y.data), *A.in_shape), dtype=y.data.dtype, device=y.data.device)
        projection = torch.zeros_like(y.data)
        active = y.chi2(projection) > self.discrepancy
        while len(monitor.residuals) < self.iterations and bool(active.any()):
            update = subsets.sweep(x, relaxation, self.nonnegative, projection)
            x = torch.where(expand(active, ndim), update, x)
            projection, relaxation = A(x), relaxation * self.reduction
            active = active & (y.chi2(projection) > self.discrepancy)
            if monitor(projection):
                break
        return monitor.solution(A, x, not bool(active.any()), iterations=len(monitor.residuals), subsets=len(subsets))

    @classmethod
    def examples(cls) -> Iterator[SART]:
        yield cls(iterations=5)
        yield cls(iterations=3, subsets=0, relaxation=0.5, nonnegative=False, weights="rays")
        yield cls(iterations=5, subsets=4, reduction=0.9)
