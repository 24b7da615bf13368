"""The iteration that CG-SENSE and CGLS share: regularised weighted least squares, each slice with a stop of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.linalg import dot, expand
from medrecon.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor
from medrecon.solvers.misfit import Misfit


def least_squares(A: LinearOperator, y: Measurement, monitor: Monitor, *, tikhonov: float = 0.0,
                  discrepancy: float = 0.0, tolerance: float = 0.0) -> tuple[Tensor, Tensor]:  # fmt: skip
    """min |root (A x - y)|^2 + mu |x|^2 by conjugate gradients (Hestenes & Stiefel 1952) from x = 0.

    mu = tikhonov times the curvature |root A b|^2 / |b|^2 along the first gradient b = A^H root^2 y. At most
    monitor.steps steps of one normal operator each.

    Args:
        discrepancy: a slice stops once its chi^2/m is at most this.
        tolerance: a slice also stops once its gradient is at most this fraction of the first.

    Returns:
        Images (B, *in_shape), and which of them met one of the two, (B,).
    """
    ndim, misfit = len(A.in_shape), Misfit(A, y)
    image, seen = torch.zeros_like(misfit.target), torch.zeros_like(misfit.target)
    direction = gradient = misfit.target
    start = size = dot(gradient, gradient, ndim)
    tiny, mu = torch.finfo(size.dtype).tiny, None
    done = (size == 0) | (misfit.chi2(image, seen) <= discrepancy)
    while len(monitor.residuals) < monitor.steps and not bool(done.all()):
        ahead = misfit.normal(direction)
        fit, length = dot(direction, ahead, ndim), dot(direction, direction, ndim)
        mu = tikhonov * fit / length.clamp_min(tiny) if mu is None else mu
        step = torch.where(done, 0, size / (fit + mu * length).clamp_min(tiny))
        image, seen = image + expand(step, ndim) * direction, seen + expand(step, ndim) * ahead
        gradient = misfit.target - seen - expand(mu, ndim) * image
        new = dot(gradient, gradient, ndim)
        direction = gradient + expand(new / size.clamp_min(tiny), ndim) * direction
        chi2, size = misfit.chi2(image, seen), new
        done = done | (chi2 <= discrepancy) | (size <= tolerance**2 * start)
        if monitor.record(chi2):
            break
    return image, done
