"""CG-SENSE (Pruessmann 2001): whitened least squares by conjugate gradients, stopped at the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import dot, expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit
from medrecon.solvers.variational.misfit import Misfit


@dataclass(frozen=True)
class CGSense(Solver):
    """min |root (A x - y)|^2 + mu |x|^2 by conjugate gradients from zero; root = sqrt(precision).

    Args:
        iterations: at most.
        tikhonov: mu relative to what a sample says of a pixel: the mean curvature |root A v|^2 / |v|^2 over the samples
            of a coil per pixel. So R, trajectory and the units of the data leave the best value where it is.
        discrepancy: a slice is done once its chi^2/m is below it; off by default: most k-space samples are noise, so
            chi^2/m = 1 is met long before the image is (two validation slices: step 4 of 12, 0.7 to 0.8 dB lower).
        tolerance: a slice is also done once its gradient is this fraction of the first.
    """

    iterations: int = 30
    tikhonov: float = 1e-2
    discrepancy: float = 0.0
    tolerance: float = 1e-4

    name: ClassVar[str] = "cg-sense"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "least squares over all coils by conjugate gradients, a small Tikhonov term"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        ndim, misfit, monitor = len(A.in_shape), Misfit(A, y), Monitor(y, self.iterations, on_step)
        image, seen = torch.zeros_like(misfit.target), torch.zeros_like(misfit.target)
        direction = gradient = misfit.target
        start = size = dot(gradient, gradient, ndim)
        done, tiny = size == 0, torch.finfo(size.dtype).tiny
        mu = self.tikhonov * information(A, y, misfit, generator)
        while len(monitor.residuals) < self.iterations and not bool(done.all()):
            ahead = misfit.normal(direction)
            fit, length = dot(direction, ahead, ndim), dot(direction, direction, ndim)
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


def information(A: LinearOperator, y: Measurement, misfit: Misfit, generator: torch.Generator) -> Tensor:
    """Mean curvature of chi^2 / 2 over the measured samples of a coil per pixel, (B,): 1 / sigma^2 for maps of unit
    root-sum-of-squares and data of one noise level, Cartesian or not. Of the pixels that A sees."""
    ndim = len(A.in_shape)
    v = torch.randn((1, *A.in_shape), dtype=misfit.target.dtype, generator=generator).to(misfit.target.device)
    v = (v if A.support is None else v * A.support).expand(misfit.target.shape)
    measured = (y.precision > 0).expand(y.data.shape).flatten(1).sum(1) / A.out_shape[0]
    curvature = dot(v, misfit.normal(v), ndim) / dot(v, v, ndim).clamp_min(torch.finfo(v.dtype).tiny)
    return curvature * v[0].numel() / measured.clamp_min(1)
