"""Total variation by the primal-dual method (Chambolle & Pock 2011), preconditioned, with a weight without units."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.circulant import approximate_inverse
from medrecon.numerics.differences import gradient, gradient_adjoint, magnitude, total_variation
from medrecon.numerics.linalg import cg, dot, expand, summed
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
    iterations: int = 300
    tolerance: float = 5e-5
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
        n, support = len(A.in_shape), _support(A)
        monitor = Monitor(y, self.iterations, on_step)
        x = _allowed(_least_squares(A, y), support)
        total = total_variation(x, n)
        floor, image = total / 4, x
        weight = self._weight(total, floor, x)
        rate = torch.where(total > 0, weight * x[0].numel() / (EDGE * total).clamp_min(TINY), 1)
        data, field = _data(A, y, x, self.balance * rate), _Field(x, rate)
        terms: list[_Term] = [data, field] if x.is_complex() else [data, field, _Sign(x, SIGN * rate)]
        inverse = approximate_inverse(data.gram, x, rate, 0 * rate if x.is_complex() else SIGN * rate)
        chi2 = y.chi2(A(x))
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.iterations):
            force = _within(_sum(term.force(self.relaxation, weight) for term in terms), support)
            move = _within(inverse(force), support)
            moves = [term.pull(move) for term in terms]
            bend = _sum(term.energy(move, m) for term, m in zip(terms, moves, strict=True))
            length = dot(move, force, n) / bend.clamp_min(TINY)
            back = expand(-length, n)
            chi2 = torch.where(done, chi2, chi2 + data.change(move, moves[0], length) / y.measured)
            x = torch.addcmul(x, back, move)
            for term, m in zip(terms, moves, strict=True):
                term.seen.addcmul_(m, back.reshape(-1, *(1,) * (m.ndim - 1 - term.lead)))
            estimate = self._weight(field.total(), floor, x)
            settled = DAMPING * (estimate - weight).abs() <= self.tolerance * weight
            weight = torch.lerp(weight, estimate, DAMPING)
            image = torch.where(expand(done, n), image, x) if bool(done.any()) else x
            done = done | (settled & (length.abs() * _size(move) <= self.tolerance * _size(x)))
            if monitor.record(chi2) or bool(done.all()):
                break
        image = _allowed(image, support)
        return monitor.solution(A, image, bool(done.all()), weight=self._weight(total_variation(image, n), floor, x))

    def _weight(self, total: Tensor, floor: Tensor, x: Tensor) -> Tensor:
        """lambda of each item, (B,), from its TV."""
        total = total + floor
        return self.strength * x[0].numel() / torch.where(total > 0, total, 1)

    @classmethod
    def examples(cls) -> Iterator[TV]:
        yield cls(iterations=30)
        yield cls(strength=0.05, iterations=15)


class _Term(ABC):
    """g(K x) of the objective by alternating directions: a copy of K x that g has moved, and the dual of both.

    All are in the unit of the dual, that is times its step: `seen` is step K x of the image at hand, (B, ...) behind
    `lead` more axes. They are updated in place.
    """

    lead = 0

    def __init__(self, seen: Tensor) -> None:
        self.seen, self.copy, self.dual = seen, seen.clone(), torch.zeros_like(seen)

    @abstractmethod
    def pull(self, v: Tensor) -> Tensor:
        """Return step K v."""

    @abstractmethod
    def back(self, v: Tensor) -> Tensor:
        """Return K^H v, (B, item)."""

    @abstractmethod
    def energy(self, v: Tensor, pulled: Tensor) -> Tensor:
        """Return step |K v|^2 of each item, (B,)."""

    @abstractmethod
    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return the dual nearest v that g allows."""

    def force(self, relaxation: float, weight: Tensor) -> Tensor:
        """Move copy and dual; return how they push the image, (B, item)."""
        both = self.copy.lerp_(self.seen, relaxation).add_(self.dual)
        self.dual = self.prox(both, weight)
        self.copy = both.sub_(self.dual)
        return self.back((self.seen + self.dual).sub_(self.copy))

    def gram(self, v: Tensor) -> Tensor:
        """Return K^H step K v."""
        return self.back(self.pull(v))


class _Data(_Term):
    """chi^2 / 2 by the samples: K = A.

    A sample's step grows with the root of its precision: with precisions alone the bright rays, which say least about
    the object, hold up the others. All steps together pull at the start x by `rate`.
    """

    def __init__(self, A: LinearOperator, y: Measurement, x: Tensor, rate: Tensor) -> None:
        n, precision = len(A.out_shape), y.precision.expand(y.data.shape)
        root, seen = precision.sqrt(), A(x)
        self.A, self.step = A, root * expand(_pulling(dot(seen, root * seen, n), x, rate), n)
        self.inverse = torch.where(self.step > 0, 1 / self.step, 0)
        self.precision, self.target = precision * self.inverse, self.step * y.data
        self.shrink = self.precision / (1 + self.precision)
        super().__init__(self.step * seen)

    def pull(self, v: Tensor) -> Tensor:
        return self.step * self.A(v)

    def back(self, v: Tensor) -> Tensor:
        return self.A.adjoint(v)

    def energy(self, v: Tensor, pulled: Tensor) -> Tensor:
        return dot(self.inverse * pulled, pulled, pulled.ndim - 1)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        return self.shrink * (v - self.target)

    def change(self, v: Tensor, pulled: Tensor, length: Tensor) -> Tensor:
        """Return by how much chi^2 of each item changes along -length v, (B,)."""
        beyond = torch.addcmul(2 * (self.target - self.seen), expand(length, pulled.ndim - 1), pulled)
        return length * dot(self.precision * pulled, self.inverse * beyond, pulled.ndim - 1)


class _Gram(_Term):
    """chi^2 / 2 by A^H P A alone, in image space, where all samples have one precision: K = P^(1/2) A, its duals seen
    through K^H.

    All steps together pull at the start x by `rate`.
    """

    def __init__(self, A: LinearOperator, y: Measurement, x: Tensor, rate: Tensor) -> None:
        n, self.normal = len(A.in_shape), normal(A, y.precision)
        seen = self.normal(x)
        self.step = expand(_pulling(dot(x, seen, n), x, rate), n)
        self.target = self.step * A.adjoint(y.precision * y.data)
        super().__init__(self.step * seen)

    def pull(self, v: Tensor) -> Tensor:
        return self.normal(v).mul_(self.step)

    def back(self, v: Tensor) -> Tensor:
        return v

    def energy(self, v: Tensor, pulled: Tensor) -> Tensor:
        return dot(v, pulled, v.ndim - 1)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        return (v - self.target).mul_(1 / (1 + self.step))

    def change(self, v: Tensor, pulled: Tensor, length: Tensor) -> Tensor:
        """Return by how much chi^2 of each item changes along -length v, (B,)."""
        beyond = torch.addcmul(2 * (self.target - self.seen), expand(length, v.ndim - 1), pulled)
        return length * dot(v, beyond, v.ndim - 1) / self.step.flatten()


class _Field(_Term):
    """lambda TV: K is the gradient, whose own axis leads."""

    lead = 1

    def __init__(self, x: Tensor, rate: Tensor) -> None:
        self.ndim, self.rate, self.step = x.ndim - 1, rate, expand(rate, x.ndim - 1)
        super().__init__(self.pull(x))

    def pull(self, v: Tensor) -> Tensor:
        return gradient(v, self.ndim).mul_(self.step)

    def back(self, v: Tensor) -> Tensor:
        return gradient_adjoint(v, self.ndim)

    def energy(self, v: Tensor, pulled: Tensor) -> Tensor:
        return dot(pulled, pulled, self.ndim).sum(0) / self.rate

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        limit = expand(weight, self.ndim)
        return v * (limit / torch.maximum(magnitude(v), limit))

    def total(self) -> Tensor:
        """Return the TV of each item, (B,)."""
        return summed(magnitude(self.seen).flatten(1), 1) / self.rate


class _Sign(_Term):
    """x >= 0."""

    def __init__(self, x: Tensor, rate: Tensor) -> None:
        self.rate, self.step = rate, expand(rate, x.ndim - 1)
        super().__init__(self.pull(x))

    def pull(self, v: Tensor) -> Tensor:
        return self.step * v

    def back(self, v: Tensor) -> Tensor:
        return v

    def energy(self, v: Tensor, pulled: Tensor) -> Tensor:
        return dot(v, pulled, v.ndim - 1)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        return v.clamp_max(0)


def _data(A: LinearOperator, y: Measurement, x: Tensor, rate: Tensor) -> _Data | _Gram:
    """chi^2 / 2, by the cheaper way."""
    return (_Data if common_level(A, y.precision) is None else _Gram)(A, y, x, rate)


def _pulling(energy: Tensor, x: Tensor, rate: Tensor) -> Tensor:
    """The factor (B,) that makes the `energy` (B,) of x rate |x|^2."""
    return torch.where(energy > 0, rate * dot(x, x, x.ndim - 1) / energy, 1)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _support(A: LinearOperator) -> Tensor | None:
    """The pixels that A sees; None: all of them."""
    support = A.support
    return None if support is None or bool(support.all()) else support


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
