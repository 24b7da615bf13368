"""CGLS: conjugate gradients on the weighted least-squares problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, check_fit
from medrecon.solvers.conjugate_gradients import least_squares


@dataclass(frozen=True)
class CGLS:
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
    needs_prior: ClassVar[bool] = False

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        monitor = Monitor(y, self.iterations, on_step)
        image, done = least_squares(A, y, monitor, discrepancy=self.discrepancy)
        return monitor.solution(A, image, bool(done.all()), iterations=len(monitor.residuals))

    @classmethod
    def examples(cls) -> Iterator[CGLS]:
        yield cls(iterations=10)
