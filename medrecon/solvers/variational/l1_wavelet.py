"""Compressed-sensing MRI with sparse wavelets (Lustig 2007) by FISTA (Beck & Teboulle 2009)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import cg, dot, expand, power_norms, summed
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit
from medrecon.solvers.variational.misfit import Misfit

# Daubechies' orthogonal low-pass filter with four vanishing moments ("db4" of PyWavelets), sum = sqrt(2).
_DB4 = (
    0.23037781330889653,
    0.7148465705529157,
    0.6308807679298589,
    -0.027983769416859854,
    -0.18703481171909309,
    0.030841381835560764,
    0.0328830116668852,
    -0.010597401785069032,
)


def wavelet_matrix(n: int) -> Tensor:
    """One periodic db4 analysis step on n samples, n even: orthogonal (n, n); low half, then high half."""
    matrix = torch.zeros(n, n, dtype=torch.float64)
    rows = torch.arange(n // 2)
    for k, (low, high) in enumerate(zip(_DB4, reversed(_DB4), strict=True)):
        # Filters longer than a tiny image wrap around and add up.
        matrix[rows, (2 * rows + k) % n] += low
        matrix[rows + n // 2, (2 * rows + k) % n] += (-1) ** k * high
    return matrix


class Wavelet:
    """Orthonormal 2D db4 transform of (..., H, W), complex or real, periodic; H and W multiples of 2^levels."""

    def __init__(self, shape: tuple[int, int], levels: int, like: Tensor) -> None:
        sizes = [(shape[0] >> level, shape[1] >> level) for level in range(levels)]
        self.steps = [tuple(wavelet_matrix(n).to(like) for n in size) for size in sizes]

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients in Mallat's layout: the coarse image in the upper left corner."""
        out = x.clone()
        for rows, columns in self.steps:
            corner = out[..., : len(rows), : len(columns)]
            corner.copy_(rows @ corner @ columns.T)
        return out

    def inverse(self, c: Tensor) -> Tensor:
        """The adjoint and inverse."""
        out = c.clone()
        for rows, columns in reversed(self.steps):
            corner = out[..., : len(rows), : len(columns)]
            corner.copy_(rows.T @ corner @ columns)
        return out


@dataclass(frozen=True)
class L1Wavelet(Solver):
    """min over x of chi^2(x) / 2 + lambda |W x|_1, W orthonormal db4, the coarsest level free. What A does not
    see is free too, whatever makes the details smallest, and 0 in the solution.

    lambda = strength * pixels / (|W x|_1 + |W x0|_1 / 4), re-estimated at every step from the details of the image and
    of the least-squares start, as in `TV`: no units, and the noise comes from the precision. The complex modulus is
    thresholded. The threshold is averaged over `spins` fixed shifts of the wavelet grid (cycle spinning, Coifman &
    Donoho 1995): no block artefacts, and as an average of proximal maps it still converges, unlike random shifts.

    Args:
        strength: of the regularisation; larger is smoother.
        levels: of the transform; fewer on images below 2^(levels + 3).
        iterations: at most; each is one normal operator.
        tolerance: a slice is done once the image changes by less than this fraction a step.
        spins: shifts of the wavelet grid; 1 = the plain orthogonal transform.

    Raises:
        ValueError: a setting out of its range, or an operator whose images are not 2D.
    """

    strength: float = 0.4
    levels: int = 4
    iterations: int = 100
    tolerance: float = 1e-3
    spins: int = 4

    name: ClassVar[str] = "l1-wavelet"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "compressed sensing: sparse in orthogonal db4 wavelets, FISTA with cycle spinning"

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.levels >= 1 and self.iterations >= 1 and self.spins >= 1):
            raise ValueError(f"{self}: needs strength > 0, levels, iterations and spins >= 1")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        if len(A.in_shape) != 2:
            raise ValueError(f"L1Wavelet: needs 2D images, got items of shape {A.in_shape}")
        check_fit(A, y)
        monitor = Monitor(y, self.iterations, on_step)
        misfit = Misfit(A, y)
        x = cg(misfit.normal, misfit.target, ndim=2, iterations=5).x
        curvature = power_norms(misfit.normal, torch.ones_like(x), 2).square()
        step = torch.where(curvature > 0, 1 / curvature, 0)  # 0: nothing was measured
        threshold = _Threshold(A.in_shape, self.levels, x)
        seen, image = misfit.normal(x), x
        total = threshold(x, torch.zeros_like(step), 1)[1]
        floor = total / 4
        # N z of the extrapolated point z = x + beta (x - x_before) is the same combination of N x.
        z, z_seen, momentum = x, seen, 1.0
        done, chi2 = torch.zeros(len(x), dtype=torch.bool, device=x.device), misfit.chi2(x, seen)
        for _ in range(self.iterations):
            moved = z - expand(step, 2) * (z_seen - misfit.target)
            new, total = threshold(moved, step * self._weight(total + floor, x), self.spins)
            new_seen = misfit.normal(new)
            change = (dot(new - x, new - x, 2) / dot(new, new, 2).clamp_min(torch.finfo(step.dtype).tiny)).sqrt()
            image = torch.where(expand(done, 2), image, new)
            chi2 = torch.where(done, chi2, misfit.chi2(new, new_seen))
            done = done | (change <= self.tolerance)
            if monitor.record(chi2) or bool(done.all()):
                break
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            beta, momentum = (momentum - 1) / following, following
            z, z_seen = new + beta * (new - x), new_seen + beta * (new_seen - seen)
            x, seen = new, new_seen
        return monitor.solution(A, image, bool(done.all()))

    def _weight(self, total: Tensor, x: Tensor) -> Tensor:
        """lambda of each item, (B,), from the sum of its details."""
        return self.strength * x[0].numel() / torch.where(total > 0, total, 1)

    @classmethod
    def examples(cls) -> Iterator[L1Wavelet]:
        yield cls(iterations=20)
        yield cls(iterations=10, spins=1)


class _Threshold:
    """Soft threshold of the wavelet details of an image, padded to a multiple of 2^levels."""

    def __init__(self, shape: tuple[int, ...], levels: int, like: Tensor) -> None:
        depth = max(1, min(levels, min(shape).bit_length() - 4))
        self.cell, self.shape = 2**depth, shape
        self.pad = tuple(-n % self.cell for n in shape)
        padded = (shape[0] + self.pad[0], shape[1] + self.pad[1])
        self.wavelet = Wavelet(padded, depth, like)
        self.coarse = (padded[0] >> depth, padded[1] >> depth)

    def __call__(self, x: Tensor, limit: Tensor, spins: int) -> tuple[Tensor, Tensor]:
        """The image with its details shrunk by `limit` (B,), and the sum of what is left of them, (B,)."""
        padded = torch.nn.functional.pad(x, (0, self.pad[1], 0, self.pad[0]))
        image, total = torch.zeros_like(padded), torch.zeros_like(limit)
        for k in range(spins):
            # These shifts take all four parities in turn: the finest level sees them as different grids.
            shift = (5 * k % self.cell, (3 * k + k // 2) % self.cell)
            c = self.wavelet.forward(padded.roll(shift, (-2, -1)))
            size = c.abs()
            factor = (1 - expand(limit, 2) / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0)
            size[..., : self.coarse[0], : self.coarse[1]] = 0
            factor[..., : self.coarse[0], : self.coarse[1]] = 1
            image += self.wavelet.inverse(factor * c).roll((-shift[0], -shift[1]), (-2, -1)) / spins
            total += summed((factor * size).flatten(1), 1) / spins
        return image[..., : self.shape[0], : self.shape[1]], total
