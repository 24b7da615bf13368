"""Total variation by the primal-dual method (Chambolle & Pock 2011), preconditioned, with a weight without units."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.circulant import approximate_inverse
from medrecon.numerics.differences import gradient, gradient_adjoint, magnitude, total_variation
from medrecon.numerics.linalg import cg, dot, expand
from medrecon.operators.base import LinearOperator
from medrecon.operators.normal import common_level, normal
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit

TINY = torch.finfo(torch.float32).tiny
DAMPING = 0.1
"""Share of a new estimate of lambda in each step: at once, image and lambda can chase each other in a circle."""
EDGE = 2.0
"""Change of a gradient in one step that the field takes fully, relative to the mean gradient of the start."""
SIGN = 2.0
"""Step of the dual of x >= 0 over that of the field."""


@dataclass(frozen=True)
class TV(Solver):
    """min over x of chi^2(x) / 2 + lambda TV(x), x >= 0 where images are real, 0 where A sees nothing.

    lambda = strength * pixels / (TV(x) + TV(x0) / 4), re-estimated at every step; x0 is the least-squares start. This
    is the most probable scale of a prior exp(-lambda TV) under a gamma hyperprior, whose share of x0 keeps lambda from
    running away to a flat image when the noise is strong. So neither the units of the image nor the noise level of
    the scan change the best `strength`; it relies on a calibrated precision (chi^2/m of the truth about 1).

    Alternating directions: samples, differences and signs each have a dual that moves by its own step, and the image
    moves along the preconditioned gradient of all of them by an exact line search (`approximate_inverse` is the inverse
    up to what differs from place to place).

    Differences are those of neighbouring pixels, along every axis of the image, whatever their pitch in mm: in a volume
    of slices thicker than its pixels a step from slice to slice costs no more than one in the plane.

    Args:
        strength: of the regularisation; larger is smoother.
        iterations: at most; each is one A and one A^H, or one A^H A.
        tolerance: a slice is done once a step changes neither the image nor lambda by more than this fraction.
        balance: how fast the data pull, relative to the field of the gradient; changes speed alone.
        relaxation: over-relaxation in [1, 2) (Eckstein & Bertsekas 1992); changes speed alone.

    Raises:
        ValueError: a setting out of its range.
    """

    strength: float = 0.4
    iterations: int = 150
    tolerance: float = 3e-4
    balance: float = 5.0
    relaxation: float = 1.6

    name: ClassVar[str] = "tv"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "isotropic total variation, converged primal-dual; keeps edges, flattens texture"

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.iterations >= 1 and self.balance > 0 and 1 <= self.relaxation < 2):
            raise ValueError(f"{self}: needs strength > 0, iterations >= 1, balance > 0 and 1 <= relaxation < 2")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        n = len(A.in_shape)
        monitor = Monitor(y, self.iterations, on_step)
        x = _allowed(_least_squares(A, y), A.support)
        total = total_variation(x, n)
        floor, image = total / 4, x
        weight = self._weight(total, floor, x)
        rate = torch.where(total > 0, weight * x[0].numel() / (EDGE * total).clamp_min(TINY), 1)
        (data, target), field = _data(A, y, x, self.balance * rate), _field(x, rate)
        terms = [data, field] if x.is_complex() else [data, field, _sign(x, SIGN * rate)]
        inverse = approximate_inverse(data.gram, x, rate, 0 * rate if x.is_complex() else SIGN * rate)
        start, seen, first = x, data.seen, y.chi2(A(x))
        chi2, done = first, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.iterations):
            force = _within(_sum(term.force(self.relaxation, weight) for term in terms), A.support)
            move = _within(inverse(force), A.support)
            moves = [term.pull(move) for term in terms]
            bend = _sum(term.energy(move, m) for term, m in zip(terms, moves, strict=True))
            length = dot(move, force, n) / bend.clamp_min(TINY)
            x = x - expand(length, n) * move
            for term, m in zip(terms, moves, strict=True):
                term.seen = term.seen - expand(length, term.ndim) * m
            estimate = self._weight(magnitude(field.seen.movedim(1, 0)).flatten(1).sum(1), floor, x)
            settled = DAMPING * (estimate - weight).abs() <= self.tolerance * weight
            weight = torch.lerp(weight, estimate, DAMPING)
            image = torch.where(expand(done, n), image, x)
            gain = dot(data.mate(x - start, data.seen - seen), data.seen + seen - 2 * target, data.ndim)
            chi2 = torch.where(done, chi2, first + gain / y.measured)
            done = done | (settled & (length.abs() * _size(move) <= self.tolerance * _size(x)))
            if monitor.record(chi2) or bool(done.all()):
                break
        image = _allowed(image, A.support)
        return monitor.solution(A, image, bool(done.all()), weight=self._weight(total_variation(image, n), floor, x))

    def _weight(self, total: Tensor, floor: Tensor, x: Tensor) -> Tensor:
        """lambda of each item, (B,), from its TV."""
        total = total + floor
        return self.strength * x[0].numel() / torch.where(total > 0, total, 1)

    @classmethod
    def examples(cls) -> Iterator[TV]:
        yield cls(iterations=30)
        yield cls(strength=0.05, iterations=15)


Map = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class _Term:
    """g(K x) of the objective by alternating directions: K x as `seen`, the copy of it that g has moved, their dual.

    What K gives may be weighted, K = P A with P the precision; then so are `seen`, `copy` and `dual`.

    Attributes:
        pull, back: v -> K v, and the way back to images without the weight.
        mate: (v, K v) -> what K v is multiplied with for its energy: K v itself, without the weight.
        prox: (dual, lambda) -> the dual that g allows.
        step: of the dual, > 0, broadcasts to `seen`; relative to the weight.
        seen: K x of the image at hand, (B, ...) with `ndim` axes behind the batch.
    """

    pull: Map
    back: Map
    mate: Callable[[Tensor, Tensor], Tensor]
    prox: Callable[[Tensor, Tensor], Tensor]
    step: Tensor
    seen: Tensor

    def __post_init__(self) -> None:
        self.copy, self.dual, self.ndim = self.seen, torch.zeros_like(self.seen), self.seen.ndim - 1

    def force(self, relaxation: float, weight: Tensor) -> Tensor:
        """Move copy and dual; return how they push the image, (B, item)."""
        moved = torch.lerp(self.copy, self.seen, relaxation)
        dual = self.prox(self.dual + self.step * moved, weight)
        self.copy, self.dual = moved - (dual - self.dual) / self.step, dual
        return self.back(self.step * (self.seen - self.copy) + dual)

    def energy(self, v: Tensor, pulled: Tensor) -> Tensor:
        """step |K v|^2 of each item, (B,)."""
        return dot(self.mate(v, pulled), self.step * pulled, self.ndim)

    def gram(self, v: Tensor) -> Tensor:
        """K^H step K v."""
        return self.back(self.step * self.pull(v))


def _data(A: LinearOperator, y: Measurement, x: Tensor, rate: Tensor) -> tuple[_Term, Tensor]:
    """chi^2 / 2 as a term, and P y. By A^H P A alone, in image space, where all samples have one precision.

    A sample's step grows with the root of its precision: with precisions alone the bright rays, which say least about
    the object, hold up the others. All steps together pull at the start x by `rate`.
    """
    precision = y.precision.expand(y.data.shape)
    target = precision * y.data
    if common_level(A, y.precision) is not None:
        pull: Map = normal(A, y.precision)
        back: Map = _same
        ratio = torch.ones_like(rate)
        mate, target, n = _first, A.adjoint(target), len(A.in_shape)
        ratio = expand(ratio, n)
    else:
        n = len(A.out_shape)
        back, inverse = A.adjoint, torch.where(precision > 0, 1 / precision, 0)
        ratio = (inverse * expand(precision.flatten(1).mean(1), n)).sqrt()
        ratio = torch.where(precision > 0, ratio, 1)

        def pull(v: Tensor) -> Tensor:
            return precision * A(v)

        def mate(v: Tensor, pulled: Tensor) -> Tensor:
            return inverse * pulled

    seen = pull(x)
    energy = dot(mate(x, seen), ratio * seen, n)
    step = ratio * expand(torch.where(energy > 0, rate * dot(x, x, x.ndim - 1) / energy, 1), n)
    return _Term(pull, back, mate, lambda d, weight: (d - step * target) / (1 + step), step, seen), target


def _field(x: Tensor, rate: Tensor) -> _Term:
    """lambda TV; the gradient's own axis comes behind the batch."""
    n = x.ndim - 1

    def pull(v: Tensor) -> Tensor:
        return gradient(v, n).movedim(0, 1)

    def prox(dual: Tensor, weight: Tensor) -> Tensor:
        return dual / (magnitude(dual.movedim(1, 0)) / expand(weight, n)).clamp_min(1)[:, None]

    return _Term(pull, lambda v: gradient_adjoint(v.movedim(1, 0), n), _second, prox, expand(rate, n + 1), pull(x))


def _sign(x: Tensor, rate: Tensor) -> _Term:
    """x >= 0."""
    return _Term(_same, _same, _first, lambda dual, weight: dual.clamp_max(0), expand(rate, x.ndim - 1), x)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _same(x: Tensor) -> Tensor:
    return x


def _first(v: Tensor, pulled: Tensor) -> Tensor:
    return v


def _second(v: Tensor, pulled: Tensor) -> Tensor:
    return pulled


def _within(x: Tensor, support: Tensor | None) -> Tensor:
    """0 where A sees nothing."""
    return x if support is None else x * support


def _allowed(x: Tensor, support: Tensor | None) -> Tensor:
    """0 where A sees nothing; real images are not negative."""
    return _within(x if x.is_complex() else x.clamp_min(0), support)


def _size(x: Tensor) -> Tensor:
    """The norm of each item, (B,)."""
    return dot(x, x, x.ndim - 1).sqrt()


def _least_squares(A: LinearOperator, y: Measurement) -> Tensor:
    """A few CG steps towards the weighted least-squares image: the start."""
    target = A.adjoint(y.precision * y.data)
    return cg(normal(A, y.precision), target, ndim=len(A.in_shape), iterations=5).x
