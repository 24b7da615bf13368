"""ASD-POCS: total variation by adaptive steepest descent, alternating with projections onto the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.differences import gradient, gradient_adjoint, magnitude
from medrecon.numerics.linalg import dot, expand, summed
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.ct.ordered_subsets import OrderedSubsets, Weights

TINY = torch.finfo(torch.float32).tiny
ROUNDING = 1e-4
"""Of the TV's corner at 0, as a fraction of the level of the image: where the gradient is below it, it counts as 0."""


@dataclass(frozen=True)
class ASDPOCS(Solver):
    """min TV(f) over f >= 0 with chi^2/m(f) <= epsilon (Sidky & Pan, Phys. Med. Biol. 53:4777, 2008), names as there.

    Each iteration: a sweep of ordered-subset SART with positivity (the paper's ART), f_res; then ng steps of length
    dtvg down the TV. dtvg starts at alpha times the first data step and shrinks by alpha_red whenever the TV moved
    the image further than r_max times the data step while the data distance is above epsilon. beta, the relaxation of
    the data steps, shrinks by beta_red every iteration. The image is f_res. Every slice is adaptive on its own and
    stops where chi^2/m <= epsilon and c_alpha, the cosine between the gradients of TV and of the data distance over
    the positive pixels, is at most the set one (-1: the constrained minimum). It relies on a calibrated precision.

    Args:
        iterations: at most.
        epsilon: tolerance of the data, in chi^2/m.
        beta, beta_red, ng, alpha, r_max, alpha_red: of the paper, see above.
        c_alpha: stop at this cosine, in [-1, 0].
        subsets: of the views in a data sweep; 0: one for each view.
        weights: of the data steps: 'precision', the statistical weights; 'rays', 1 / row sums of A, the paper's.

    Raises:
        ValueError: a setting out of its range.
    """

    iterations: int = 60
    epsilon: float = 0.8
    beta: float = 1.0
    beta_red: float = 0.98
    ng: int = 20
    alpha: float = 0.002
    r_max: float = 0.95
    alpha_red: float = 0.95
    c_alpha: float = -0.5
    subsets: int = 20
    weights: Weights = "precision"

    name: ClassVar[str] = "asd-pocs"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "least total variation that explains the data to the noise level, by ASD-POCS"
    early: ClassVar[str] = "its steps shrink as published, and more of them change little; tv goes on to its minimum"

    def __post_init__(self) -> None:
        fractions = (self.beta_red, self.alpha, self.r_max, self.alpha_red)
        if not (self.iterations >= 1 and self.ng >= 0 and self.subsets >= 0 and self.epsilon >= 0):
            raise ValueError(f"{self}: needs iterations >= 1, and ng, subsets and epsilon >= 0")
        if not (0 < self.beta < 2 and all(0 < f <= 1 for f in fractions) and -1 <= self.c_alpha <= 0):
            raise ValueError(
                f"{self}: needs 0 < beta < 2, beta_red, alpha, r_max and alpha_red in (0, 1], c_alpha in [-1, 0]"
            )

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Raises TypeError for complex images, and for an operator without `subset` unless subsets = 1."""
        subsets = OrderedSubsets(A, y, self.subsets, self.weights)
        monitor, ndim, beta = Monitor(y, self.iterations, on_step), len(A.in_shape), self.beta
        f = torch.zeros((len(y.data), *A.in_shape), dtype=y.data.dtype, device=y.data.device)
        image, projection, dtvg = f, torch.zeros_like(y.data), torch.zeros(0)
        done = torch.zeros(len(f), dtype=torch.bool, device=f.device)
        cosine = torch.zeros(len(f), device=f.device)
        for _ in range(self.iterations):
            f_res = subsets.sweep(f, beta)
            seen = A(f_res)
            dd, dp = y.chi2(seen), _distance(f_res, f)
            dtvg = dtvg if len(monitor.residuals) else self.alpha * dp
            image = torch.where(expand(done, ndim), image, f_res)
            projection = torch.where(expand(done, len(A.out_shape)), projection, seen)
            cosine = torch.where(done, cosine, _cosine(f_res, A.adjoint(y.precision * (seen - y.data))))
            done = done | ((dd <= self.epsilon) & (cosine <= self.c_alpha))
            if monitor(projection) or bool(done.all()):
                break
            f = self._descend(f_res, dtvg)
            dg = _distance(f, f_res)
            dtvg = torch.where((dg > self.r_max * dp) & (dd > self.epsilon), self.alpha_red * dtvg, dtvg)
            beta *= self.beta_red
        return monitor.solution(A, image, bool(done.all()), cosine=cosine, beta=beta)

    def _descend(self, f: Tensor, dtvg: Tensor) -> Tensor:
        """ng steps of length dtvg down the TV."""
        for _ in range(self.ng):
            df = tv_gradient(f)
            f = f - expand(dtvg / _length(df).clamp_min(TINY), f.ndim - 1) * df
        return f

    @classmethod
    def examples(cls) -> Iterator[ASDPOCS]:
        yield cls(iterations=10)
        yield cls(iterations=5, subsets=0, ng=5, weights="rays", epsilon=0.5)


def tv_gradient(f: Tensor) -> Tensor:
    """Gradient of the isotropic TV of each item, its corner at 0 rounded, (B, item)."""
    ndim = f.ndim - 1
    level = dot(f, f, ndim) / summed(f.abs(), f.ndim - 1).clamp_min(TINY)
    step = gradient(f, ndim)
    return gradient_adjoint(step / magnitude(step).clamp_min(TINY).maximum(expand(ROUNDING * level, ndim)), ndim)


def _cosine(f: Tensor, slope: Tensor) -> Tensor:
    """c_alpha of each item: cosine between the gradients of TV and data distance, over the positive pixels."""
    d_tv, d_data = (torch.where(f > 0, d, 0) for d in (tv_gradient(f), slope))
    return dot(d_tv, d_data, f.ndim - 1) / (_length(d_tv) * _length(d_data)).clamp_min(TINY)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return _length(a - b)


def _length(x: Tensor) -> Tensor:
    return dot(x, x, x.ndim - 1).sqrt()
