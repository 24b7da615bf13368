"""Locally low rank reconstruction of dynamic series (Trzasko 2011; Zhang 2015), converged, without random shifts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import cg, dot, expand, power_norms
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit
from medrecon.solvers.variational.misfit import Misfit


class Blocks:
    """The series cut into square blocks that start at `shift`: (B, T, H, W) <-> (B, blocks, T, pixels), an isometry.

    Blocks at the border are filled up with zeros.
    """

    def __init__(self, shape: tuple[int, int], size: int, shift: int) -> None:
        self.shape, self.size, self.before = shape, size, (size - shift) % size
        self.count = tuple(-(-(n + self.before) // size) for n in shape)

    def cut(self, x: Tensor) -> Tensor:
        (rows, columns), (height, width), size, before = self.count, self.shape, self.size, self.before
        after = rows * size - height - before, columns * size - width - before
        x = pad(x, (before, after[1], before, after[0]))
        x = x.reshape(*x.shape[:2], rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(len(x), rows * columns, -1, size * size)

    def join(self, blocks: Tensor) -> Tensor:
        (rows, columns), (height, width), size, before = self.count, self.shape, self.size, self.before
        x = blocks.reshape(len(blocks), rows, columns, -1, size, size).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(*x.shape[:2], rows * size, columns * size)
        return x[..., before : before + height, before : before + width]


def clip_singular_values(blocks: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values of (B, n, T, P) matrices clipped at limit (B,), and what that took off them in all, (B,).

    What is left over, blocks - clipped, is the singular value threshold: the proximal map of limit * nuclear norm.
    Each item in memory of its own: products of matrices round by where they lie, and how many.
    """
    parts = [_clipped(item.clone(), bound) for item, bound in zip(blocks, limit, strict=True)]
    return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])


def _clipped(blocks: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the matrices (n, T, P) of one item."""
    tall = blocks.shape[-2] > blocks.shape[-1]
    matrix = blocks.mT if tall else blocks
    values, vectors = torch.linalg.eigh(matrix @ matrix.mH)
    values = values.clamp_min(0).sqrt()
    factor = bound / torch.maximum(values, bound).clamp_min(torch.finfo(values.dtype).tiny)
    clipped = (vectors * factor[..., None, :].to(vectors.dtype)) @ (vectors.mH @ matrix)
    return (clipped.mT if tall else clipped), (values - bound).clamp_min(0).sum()


def nuclear_norm(blocks: Tensor) -> Tensor:
    """Sum of all singular values of (B, n, T, P), (B,)."""
    return clip_singular_values(blocks, torch.zeros(len(blocks), device=blocks.device, dtype=blocks.real.dtype))[1]


@dataclass(frozen=True)
class LLR(Solver):
    """min over X of chi^2(X) / 2 + lambda / G sum over grids and blocks of |B X|_*, B X a block's (T, pixels) matrix.

    G grids of blocks, each shifted against the last, so that no block border shows; all of them take part in every
    step (primal-dual, Condat 2013 and Vu 2013), so it converges to the minimum, which random shifts do not.
    lambda = strength * samples of X / (|X|_* + |X0|_* / 4), re-estimated from the image and the least-squares start X0
    as in `TV`: no units, and the noise comes from the precision.

    The operator is a `Series`: images (T, H, W).

    Args:
        strength: of the regularisation; larger is of lower rank.
        block: side of a block in pixels.
        grids: of blocks; 1 is the fastest and shows borders.
        iterations: at most; each is one normal operator and one eigendecomposition a block.
        tolerance: a series is done once neither it nor the dual blocks change by more than this fraction a step.
        balance: dual step relative to the curvature of chi^2; changes speed alone.

    Raises:
        ValueError: a setting out of its range, or an operator whose images are not series.
    """

    strength: float = 1.2
    block: int = 8
    grids: int = 2
    iterations: int = 300
    tolerance: float = 1e-3
    balance: float = 0.1

    name: ClassVar[str] = "llr"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    scans: ClassVar[str] = "series"
    summary: ClassVar[str] = "locally low rank over time, for dynamic series (T, H, W) in Python"

    def __post_init__(self) -> None:
        if not (self.strength > 0 and min(self.block, self.grids, self.iterations) >= 1 and self.balance > 0):
            raise ValueError(f"{self}: needs strength and balance > 0, block, grids and iterations >= 1")
        if self.grids > self.block:
            raise ValueError(f"{self}: blocks of {self.block} pixels have at most {self.block} shifts")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        if len(A.in_shape) != 3:
            raise ValueError(f"LLR: needs a dynamic series (T, H, W), as operators.series.Series; got {A!r}")
        check_fit(A, y)
        monitor, misfit = Monitor(y, self.iterations, on_step), Misfit(A, y)
        shifts = [k * self.block // self.grids for k in range(self.grids)]
        grids = [Blocks((A.in_shape[1], A.in_shape[2]), self.block, shift) for shift in shifts]
        x = cg(misfit.normal, misfit.target, ndim=3, iterations=5).x
        curvature = power_norms(misfit.normal, torch.ones_like(x), 3).square()
        sigma = self.balance * curvature / self.grids
        # Condat 2013, theorem 3.1: from curvature / 2. No curvature: nothing was measured, and the image stays 0.
        tau = torch.where(curvature > 0, 1 / (0.55 * curvature + sigma * self.grids), 0)
        floor = torch.stack([nuclear_norm(g.cut(x)) for g in grids]).mean(0) / 4
        duals = [torch.zeros_like(g.cut(x)) for g in grids]
        image, seen, done = x, misfit.normal(x), curvature <= 0
        weight = self._weight(4 * floor, floor, x)
        for _ in range(self.iterations):
            pull = sum(g.join(u) for g, u in zip(grids, duals, strict=True))
            new = x - expand(tau, 3) * (seen - misfit.target + pull)
            ahead, moved, total = 2 * new - x, _change(new, x), torch.zeros_like(weight)
            for k, grid in enumerate(grids):
                pushed = duals[k] + expand(sigma, 3) * grid.cut(ahead)
                clipped, excess = clip_singular_values(pushed, weight / self.grids)
                moved = torch.maximum(moved, _change(clipped, duals[k]))
                duals[k], total = clipped, total + excess / (sigma * self.grids)
            x, seen = new, misfit.normal(new)
            weight = torch.lerp(weight, self._weight(total, floor, x), 0.1)
            image = torch.where(expand(done, 3), image, new)
            done = done | (moved <= self.tolerance)
            if monitor.record(misfit.chi2(new, seen)) or bool(done.all()):
                break
        return monitor.solution(A, image, bool(done.all()), weight=weight)

    def _weight(self, total: Tensor, floor: Tensor, x: Tensor) -> Tensor:
        """lambda of each series, (B,)."""
        total = total + floor
        return self.strength * x[0].numel() / torch.where(total > 0, total, 1)

    @classmethod
    def examples(cls) -> Iterator[LLR]:
        yield cls(iterations=20)
        yield cls(block=5, grids=1, iterations=10)


def _change(new: Tensor, old: Tensor) -> Tensor:
    """|new - old| / |new| of each item, (B,); 0 where both are 0."""
    ndim = new.ndim - 1
    moved, size = dot(new - old, new - old, ndim), dot(new, new, ndim)
    return (moved / size.clamp_min(torch.finfo(size.dtype).tiny)).sqrt()
