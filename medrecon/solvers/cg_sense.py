"""CG-SENSE (Pruessmann 2001): whitened least squares by conjugate gradients, stopped at the noise."""

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
class CGSense:
    """min |root (A x - y)|^2 + mu |x|^2 by conjugate gradients from zero; root = sqrt(precision).

    Args:
        iterations: at most.
        tikhonov: mu relative to the curvature |root A b|^2 / |b|^2 along the first gradient b = A^H root^2 y.
        discrepancy: a slice is done once its chi^2/m is below it; off by default: most k-space samples are noise, so
            chi^2/m = 1 is met long before the image is (two validation slices: step 4 of 12, 0.7 to 0.8 dB lower).
        tolerance: a slice is also done once its gradient is this fraction of the first.
    """

    iterations: int = 15
    tikhonov: float = 3e-3
    discrepancy: float = 0.0
    tolerance: float = 1e-4

    name: ClassVar[str] = "cg-sense"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "least squares over all coils by conjugate gradients, a small Tikhonov term"
    needs_prior: ClassVar[bool] = False

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        monitor = Monitor(y, self.iterations, on_step)
        image, done = least_squares(
            A, y, monitor, tikhonov=self.tikhonov, discrepancy=self.discrepancy, tolerance=self.tolerance
        )
        return monitor.solution(A, image, bool(done.all()))

    @classmethod
    def examples(cls) -> Iterator[CGSense]:
        yield cls()
        yield cls(iterations=5, discrepancy=0.0)
