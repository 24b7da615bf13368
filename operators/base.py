"""LinearOperator: batched, differentiable, exact adjoint; the contract of every measurement model."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from medrecon.numerics.autograd import Apply, linear_map
from medrecon.numerics.linalg import cg, power_norm
from medrecon.operators.calls import Calls
from medrecon.operators.spectrum import Spectrum


class LinearOperator(abc.ABC):
    """y = A x for x (..., *in_shape), y (..., *out_shape); leading axes are a batch.

    A subclass sets the shapes and dtypes and implements `_forward` and `_adjoint` on exactly one batch axis.
    The adjoint is exact: Re<Ax, y> = Re<x, A^H y> to rounding; it is used as the derivative. `check_operator` tells
    whether an operator keeps the laws.

    Operators are combined by `A @ B`, `A + B`, `A - B`, `c * A`, `A.H`, and those of `operators.algebra`.

    Attributes:
        in_shape, out_shape: shapes of one item.
        in_dtype, out_dtype: float32 or complex64 (float64 and complex128 are accepted where the engine can).
        items: of a batch that A treats each in its own way (a mask or a field map for each of so many); 1: all alike.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    in_dtype: torch.dtype = torch.float32
    out_dtype: torch.dtype = torch.float32
    items: int = 1

    @abc.abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """(B, *in_shape) -> (B, *out_shape)."""

    @abc.abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """(B, *out_shape) -> (B, *in_shape)."""

    def _gram(self, x: Tensor) -> Tensor:
        """(B, *in_shape) -> (B, *in_shape), A^H A; override where it is cheaper than both passes."""
        return self._adjoint(self._forward(x))

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        """Yield small cases, odd and not square, for the contract tests; none unless overridden."""
        yield from ()

    @cached_property
    def calls(self) -> Calls:
        """Count of the images that A was applied to since it was made, by itself or within other operators."""
        return Calls()

    def __getstate__(self) -> dict[str, Any]:
        """Copies count their own calls."""
        return {name: value for name, value in vars(self).items() if name != "calls"}

    def forward_batch(self, x: Tensor) -> Tensor:
        """Apply A to (B, *in_shape), counted, neither checked nor differentiable: to build operators of."""
        return self._batch(x, self._forward, (self.out_shape, self.out_dtype), "forward")

    def adjoint_batch(self, y: Tensor) -> Tensor:
        """Apply A^H to (B, *out_shape), counted, neither checked nor differentiable."""
        return self._batch(y, self._adjoint, (self.in_shape, self.in_dtype), "adjoint")

    def gram_batch(self, x: Tensor) -> Tensor:
        """Apply A^H A to (B, *in_shape), counted as both passes, neither checked nor differentiable."""
        return self._batch(x, self._gram, (self.in_shape, self.in_dtype), "forward", "adjoint")

    def _batch(self, x: Tensor, apply: Apply, result: tuple[tuple[int, ...], torch.dtype], *names: str) -> Tensor:
        """Count and apply; no items make none, whatever the engine would do with them."""
        if not len(x):
            kind = x.dtype.to_complex() if result[1].is_complex else x.dtype.to_real()
            return x.new_empty((0, *result[0]), dtype=kind)
        if self.items not in (1, len(x)):
            raise ValueError(
                f"{self!r} has settings (maps, masks, phases, ...) of {self.items} items, but the batch has {len(x)}"
            )
        self.calls.add(len(x), *names)
        return apply(x)

    def _check(self, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
        who = f"{type(self).__name__}.{name}"
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: expected a torch.Tensor, got {type(x).__name__}")
        if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
            raise ValueError(f"{who}: expected shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")
        if x.is_complex() != dtype.is_complex or not (x.is_complex() or x.is_floating_point()):
            kind = "complex" if dtype.is_complex else "real floating-point"
            raise TypeError(f"{who}: expected a {kind} tensor such as {dtype}, got {x.dtype}")

    def _run(self, x: Tensor, item: tuple[int, ...], ahead: Apply, back: Apply) -> Tensor:
        lead = x.shape[: x.ndim - len(item)]
        flat = x.resolve_conj().resolve_neg().reshape(-1, *item)
        out = linear_map(flat, ahead, back, self.items)
        return out.reshape(*lead, *out.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Return A x, (..., *out_shape). Raises ValueError or TypeError naming the operator and what it expected."""
        self._check(x, self.in_shape, self.in_dtype, "forward")
        return self._run(x, self.in_shape, self.forward_batch, self.adjoint_batch)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^H y, (..., *in_shape)."""
        self._check(y, self.out_shape, self.out_dtype, "adjoint")
        return self._run(y, self.out_shape, self.adjoint_batch, self.forward_batch)

    def gram(self, x: Tensor) -> Tensor:
        """Return A^H A x, (..., *in_shape)."""
        self._check(x, self.in_shape, self.in_dtype, "gram")
        return self._run(x, self.in_shape, self.gram_batch, self.gram_batch)

    def prox(
        self, z: Tensor, y: Tensor, weight: float | Tensor, *, iterations: int = 30, tolerance: float = 1e-5
    ) -> Tensor:
        """Minimise |A x - y|^2 + weight |x - z|^2 over x by CG from z; overridden by closed forms.

        Args:
            z: (..., *in_shape). y: (..., *out_shape). weight: > 0, a number or one a batch item.
        """
        self._check(z, self.in_shape, self.in_dtype, "prox")
        self._check(y, self.out_shape, self.out_dtype, "prox")
        ndim = len(self.in_shape)
        mu = torch.as_tensor(weight, dtype=z.real.dtype, device=z.device)
        mu = mu.reshape(mu.shape + (1,) * ndim) if mu.ndim else mu
        # Solve for the change d = x - z: (A^H A + mu) d = A^H (y - A z); its tolerance is relative to the misfit.
        misfit = self.adjoint(y - self.forward(z))
        return z + cg(lambda d: self.gram(d) + mu * d, misfit, ndim=ndim, iterations=iterations, tolerance=tolerance).x

    def norm(self, generator: torch.Generator | None = None, device: str | torch.device = "cpu") -> float:
        """Estimate the largest singular value over all items by 30 power iterations (a lower bound, to about 1 %)."""
        g = generator if generator is not None else torch.Generator().manual_seed(0)
        start = torch.randn((self.items, *self.in_shape), dtype=self.in_dtype, generator=g).to(device)
        return power_norm(self.gram, start)

    @property
    def H(self) -> LinearOperator:
        """Return the adjoint as an operator."""
        return Adjoint(self)

    @property
    def sampled(self) -> Tensor | None:
        """Tell which samples A gives at all, bool, broadcasts to (B, *out_shape); None: all of them."""
        return None

    @property
    def support(self) -> Tensor | None:
        """Tell which pixels A sees, bool, broadcasts to (B, *in_shape); None: all of them."""
        return None

    @property
    def spectrum(self) -> Spectrum | None:
        """Give the singular value decomposition where each sample is one component of the image; None: not so."""
        return None

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        """(A @ B) x = A (B x)."""
        if not isinstance(other, LinearOperator):
            raise TypeError(f"{type(self).__name__} @ {type(other).__name__}: to apply an operator, call it: A(x)")
        return Composition(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """(A + B) x = A x + B x."""
        if not isinstance(other, LinearOperator):
            raise TypeError(f"{type(self).__name__} + {type(other).__name__}: operators are added to operators only")
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + (-other)

    def __neg__(self) -> LinearOperator:
        return -1 * self

    def __mul__(self, factor: complex) -> LinearOperator:
        """(c A) x = c (A x) for a number c."""
        if not isinstance(factor, Number):
            raise TypeError(
                f"{type(self).__name__} * {type(factor).__name__}: to apply an operator, call it: A(x); to weight its "
                "data, compose it: Diagonal(weights) @ A"
            )
        return Scaled(self, factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_shape} {self.in_dtype} -> {self.out_shape} {self.out_dtype})"


class Adjoint(LinearOperator):
    """A^H as an operator; (A.H).H is A."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.items = operator, operator.items
        self.in_shape, self.out_shape = operator.out_shape, operator.in_shape
        self.in_dtype, self.out_dtype = operator.out_dtype, operator.in_dtype

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint_batch(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.forward_batch(y)

    @property
    def H(self) -> LinearOperator:
        return self.operator

    @property
    def sampled(self) -> Tensor | None:
        return self.operator.support

    @property
    def support(self) -> Tensor | None:
        return self.operator.sampled


class Composition(LinearOperator):
    """(outer @ inner) x = outer(inner(x))."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.in_shape != inner.out_shape or outer.in_dtype != inner.out_dtype:
            raise ValueError(f"cannot compose: {outer!r} does not take what {inner!r} gives")
        self.outer, self.inner = outer, inner
        self.in_shape, self.out_shape = inner.in_shape, outer.out_shape
        self.in_dtype, self.out_dtype = inner.in_dtype, outer.out_dtype
        self.items = common_items(outer, inner)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer.forward_batch(self.inner.forward_batch(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint_batch(self.outer.adjoint_batch(y))

    def _gram(self, x: Tensor) -> Tensor:
        return self.inner.adjoint_batch(self.outer.gram_batch(self.inner.forward_batch(x)))

    @property
    def sampled(self) -> Tensor | None:
        return self.outer.sampled

    @property
    def support(self) -> Tensor | None:
        return self.inner.support


class Sum(LinearOperator):
    """(first + second) x = first(x) + second(x)."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        same = first.in_shape == second.in_shape and first.out_shape == second.out_shape
        if not same or first.in_dtype != second.in_dtype or first.out_dtype != second.out_dtype:
            raise ValueError(f"cannot add {first!r} and {second!r}: their shapes or dtypes differ")
        self.first, self.second = first, second
        self.in_shape, self.out_shape = first.in_shape, first.out_shape
        self.in_dtype, self.out_dtype = first.in_dtype, first.out_dtype
        self.items = common_items(first, second)

    def _forward(self, x: Tensor) -> Tensor:
        return self.first.forward_batch(x) + self.second.forward_batch(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first.adjoint_batch(y) + self.second.adjoint_batch(y)

    @property
    def sampled(self) -> Tensor | None:
        return either(self.first.sampled, self.second.sampled)

    @property
    def support(self) -> Tensor | None:
        return either(self.first.support, self.second.support)


class Scaled(LinearOperator):
    """(c A) x = c (A x) for a number c that is not 0; complex c for complex data only."""

    def __init__(self, operator: LinearOperator, factor: complex) -> None:
        if not 0 < abs(factor) < math.inf:
            raise ValueError(f"{factor} * {operator!r}: expected a finite factor that is not 0")
        if isinstance(factor, complex) and not operator.out_dtype.is_complex:
            raise TypeError(f"{factor} * {operator!r}: the data are real, and so must be the factor")
        self.operator, self.factor, self.items = operator, factor, operator.items
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.in_dtype, self.out_dtype = operator.in_dtype, operator.out_dtype

    def _forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator.forward_batch(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint_batch(self.factor.conjugate() * y)

    def _gram(self, x: Tensor) -> Tensor:
        return abs(self.factor) ** 2 * self.operator.gram_batch(x)

    def prox(
        self, z: Tensor, y: Tensor, weight: float | Tensor, *, iterations: int = 30, tolerance: float = 1e-5
    ) -> Tensor:
        """Minimise |A x - y|^2 + weight |x - z|^2 over x by CG from z; overridden by closed forms."""
        self._check(y, self.out_shape, self.out_dtype, "prox")
        weight = weight / abs(self.factor) ** 2
        return self.operator.prox(z, y / self.factor, weight, iterations=iterations, tolerance=tolerance)

    @property
    def spectrum(self) -> Spectrum | None:
        inner = self.operator.spectrum
        return None if inner is None else replace(inner, d=self.factor * inner.d)

    @property
    def sampled(self) -> Tensor | None:
        return self.operator.sampled

    @property
    def support(self) -> Tensor | None:
        return self.operator.support


def common_items(*operators: LinearOperator) -> int:
    """Return `items` of operators that are applied to the same batch."""
    counts = {A.items for A in operators if A.items != 1}
    if len(counts) > 1:
        raise ValueError(f"cannot combine operators of {' and '.join(map(str, sorted(counts)))} items: {operators}")
    return counts.pop() if counts else 1


def either(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return where one mask is true or the other; None is true everywhere."""
    return None if first is None or second is None else first | second.to(first.device)
