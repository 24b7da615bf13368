"""SIRT: simultaneous iterative reconstruction, weighted and not negative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import OnStep, Solution, Solver
from medrecon.solvers.ct.ordered_subsets import Weights
from medrecon.solvers.ct.sart import SART


@dataclass(frozen=True)
class SIRT(Solver):
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
    weights: Weights = "precision"
    nonnegative: bool = True
    discrepancy: float = 1.0

    name: ClassVar[str] = "sirt"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "weighted, non-negative SIRT, stopped at the noise level"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Raises TypeError for complex images."""
        if A.in_dtype.is_complex:
            raise TypeError(f"SIRT: needs a real, non-negative projector, got {A!r}; use 'cg-sense' for MRI")
        one = SART(self.iterations, 1, weights=self.weights, nonnegative=self.nonnegative, discrepancy=self.discrepancy)
        return one(A, y, generator=generator, on_step=on_step)

    @classmethod
    def examples(cls) -> Iterator[SIRT]:
        yield cls(iterations=20)
        yield cls(iterations=20, weights="rays", nonnegative=False)
