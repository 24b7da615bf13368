"""Compressed-sensing MRI with sparse wavelets (Lustig 2007) by FISTA (Beck & Teboulle 2009)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.linalg import cg, expand, power_norms
from medrecon.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution

# Daubechies' orthogonal low-pass filter with four vanishing moments ("db4" of PyWavelets), sum = sqrt(2).
_DB4 = (
    0.23037781330889653, 0.7148465705529157, 0.6308807679298589, -0.027983769416859854,
    -0.18703481171909309, 0.030841381835560764, 0.0328830116668852, -0.010597401785069032,
)  # fmt: skip


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
class L1Wavelet:
    """min over x of chi^2(x) / 2 + lambda |W x|_1, W orthonormal db4, the coarsest level free.

    lambda = strength * pixels / |W x|_1, re-estimated at every step, as in `TV`: no units, the noise comes from the
    precision. The complex modulus is thresholded. With `cycle_spinning` the wavelet grid is shifted at random at
    every step (from the generator): fewer block artefacts, and the minimiser is met up to the jitter of the shifts,
    so convergence is judged on the mean change of the last eight steps.

    Args:
        strength: of the regularisation; larger is smoother.
        levels: of the transform; fewer on images below 2^(levels + 3).
        iterations: at most; each is one A and one A^H.
        tolerance: a slice is done once the image changes by less than this fraction a step.

    Raises:
        ValueError: a setting out of its range, or an operator whose images are not 2D.
    """

    strength: float = 0.2
    levels: int = 4
    iterations: int = 100
    tolerance: float = 1e-3
    cycle_spinning: bool = True

    name: ClassVar[str] = "l1-wavelet"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "compressed sensing: sparse in orthogonal db4 wavelets, FISTA with random shifts"
    needs_prior: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.levels >= 1 and self.iterations >= 1):
            raise ValueError(f"{self}: needs strength > 0, levels >= 1 and iterations >= 1")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        if len(A.in_shape) != 2:
            raise ValueError(f"L1Wavelet: needs 2D images, got items of shape {A.in_shape}")
        monitor = Monitor(y, self.iterations, on_step)
        target = A.adjoint(y.precision * y.data)
        x = cg(lambda v: A.adjoint(y.precision * A(v)), target, ndim=2, iterations=5).x
        step = 1 / power_norms(lambda v: A.adjoint(y.precision * A(v)), torch.ones_like(x), 2).square()
        threshold = _Threshold(A.in_shape, self.levels, x)
        seen, image = A(x), x
        # The extrapolated point z = x + beta (x - x_before) has the projection of the same combination.
        z, z_seen, momentum = x, seen, 1.0
        done, smoothed = torch.zeros(len(x), dtype=torch.bool, device=x.device), torch.ones_like(step)
        projection = seen
        for _ in range(self.iterations):
            shift = threshold.draw(generator) if self.cycle_spinning else (0, 0)
            moved = z - expand(step, 2) * A.adjoint(y.precision * (z_seen - y.data))
            new = threshold(moved, self.strength, step, shift)
            new_seen = A(new)
            change = torch.linalg.vector_norm((new - x).flatten(1), dim=1) / _length(new)
            smoothed = smoothed + (change - smoothed) / 8
            image = torch.where(expand(done, 2), image, new)
            projection = torch.where(expand(done, len(A.out_shape)), projection, new_seen)
            done = done | (smoothed <= self.tolerance)
            if monitor(projection) or bool(done.all()):
                break
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            beta, momentum = (momentum - 1) / following, following
            z, z_seen = new + beta * (new - x), new_seen + beta * (new_seen - seen)
            x, seen = new, new_seen
        return monitor.solution(A, image, bool(done.all()))

    @classmethod
    def examples(cls) -> Iterator[L1Wavelet]:
        yield cls()
        yield cls(iterations=20, cycle_spinning=False)


class _Threshold:
    """Soft threshold of the wavelet details of a shifted image, padded to a multiple of 2^levels."""

    def __init__(self, shape: tuple[int, ...], levels: int, like: Tensor) -> None:
        depth = max(1, min(levels, min(shape).bit_length() - 4))
        self.cell, self.shape = 2**depth, shape
        self.pad = tuple(-n % self.cell for n in shape)
        padded = (shape[0] + self.pad[0], shape[1] + self.pad[1])
        self.wavelet = Wavelet(padded, depth, like)
        self.coarse = (padded[0] >> depth, padded[1] >> depth)

    def draw(self, generator: torch.Generator) -> tuple[int, int]:
        """A random shift of the wavelet grid."""
        rows, columns = torch.randint(self.cell, (2,), generator=generator, device=generator.device).tolist()
        return rows, columns

    def __call__(self, x: Tensor, strength: float, step: Tensor, shift: tuple[int, int]) -> Tensor:
        padded = torch.nn.functional.pad(x, (0, self.pad[1], 0, self.pad[0])).roll(shift, (-2, -1))
        c = self.wavelet.forward(padded)
        size = c.abs()
        size[..., : self.coarse[0], : self.coarse[1]] = 0
        total = size.flatten(1).sum(1).clamp_min(torch.finfo(size.dtype).tiny)
        limit = expand(step * strength * x[0].numel() / total, 2)
        shrunk = c * (1 - limit / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0)
        shrunk[..., : self.coarse[0], : self.coarse[1]] = c[..., : self.coarse[0], : self.coarse[1]]
        back = self.wavelet.inverse(shrunk).roll((-shift[0], -shift[1]), (-2, -1))
        return back[..., : self.shape[0], : self.shape[1]]


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1).clamp_min(torch.finfo(torch.float32).tiny)
