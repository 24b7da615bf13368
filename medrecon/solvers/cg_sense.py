"""CG-SENSE (Pruessmann 2001): whitened least squares by conjugate gradients, stopped at the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.linalg import dot, expand
from medrecon.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, check_fit
from medrecon.solvers.misfit import Misfit


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
        ndim, misfit, monitor = len(A.in_shape), Misfit(A, y), Monitor(y, self.iterations, on_step)
        image, seen = torch.zeros_like(misfit.target), torch.zeros_like(misfit.target)
        direction = gradient = misfit.target
        start = size = dot(gradient, gradient, ndim)
        done, tiny, mu = size == 0, torch.finfo(size.dtype).tiny, None
        while len(monitor.residuals) < self.iterations and not bool(done.all()):
            ahead = misfit.normal(direction)
            fit, length = dot(direction, ahead, ndim), dot(direction, direction, ndim)
            mu = self.tikhonov * fit / length.clamp_min(tiny) if mu is None else mu
            step = torch.where(done, 0, size / (fit + mu * length).clamp_min(tiny))
            image, seen = image + expand(step, ndim) * direction, seen + expand(step, ndim) * ahead
            gradient = misfit.target - seen - expand(mu, ndim) * image
            new = dot(gradient, gradient, ndim)
            direction = gradient + expand(new / size.clamp_min(tiny), ndim) * direction
            chi2, size = misfit.chi2(image, seen), new
            done = done | (chi2 <= self.discrepancy) | (size <= self.tolerance**2 * start)
            if monitor.record(chi2):
                break
        return monitor.solution(A, image, bool(done.all()))

    @classmethod
    def examples(cls) -> Iterator[CGSense]:
        yield cls()
        yield cls(iterations=5, discrepancy=0.0)
