"""LinearOperator: batched, differentiable, exact adjoint; the contract of every measurement model."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from medrecon.numerics.linalg import cg, power_norm


class _Linear(torch.autograd.Function):
    """y = A x whose backward is A^H (and the reverse), so derivatives of any order exist."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.ahead, ctx.reverse = apply, back
        return apply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(grads[0], ctx.reverse, ctx.ahead), None, None


class LinearOperator(abc.ABC):
    """y = A x for x (..., *in_shape), y (..., *out_shape); leading axes are a batch.

    A subclass sets the four attributes and implements `_forward` and `_adjoint` on exactly one batch axis.
    The adjoint is exact: Re<Ax, y> = Re<x, A^H y> to rounding; it is used as the derivative.

    Attributes:
        in_shape, out_shape: shapes of one item.
        in_dtype, out_dtype: float32 or complex64 (float64 and complex128 are accepted where the engine can).
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    in_dtype: torch.dtype = torch.float32
    out_dtype: torch.dtype = torch.float32

    @abc.abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """(B, *in_shape) -> (B, *out_shape)."""

    @abc.abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """(B, *out_shape) -> (B, *in_shape)."""

    @classmethod
    @abc.abstractmethod
    def examples(cls) -> Iterator[LinearOperator]:
        """Small cases, odd and not square: the contract tests run over them."""

    def _gram(self, x: Tensor) -> Tensor:
        """(B, *in_shape) -> (B, *in_shape), A^H A; override where it is cheaper than both passes."""
        return self._adjoint(self._forward(x))

    def _check(self, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
        who = f"{type(self).__name__}.{name}"
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: expected a torch.Tensor, got {type(x).__name__}")
        if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
            raise ValueError(f"{who}: expected shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")
        if x.is_complex() != dtype.is_complex or not (x.is_complex() or x.is_floating_point()):
            kind = "complex" if dtype.is_complex else "real floating-point"
            raise TypeError(f"{who}: expected a {kind} tensor such as {dtype}, got {x.dtype}")

    def _run(
        self, x: Tensor, item: tuple[int, ...], apply: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
    ) -> Tensor:
        lead = x.shape[: x.ndim - len(item)]
        flat = x.resolve_conj().resolve_neg().reshape(-1, *item)
        out: Tensor = _Linear.apply(flat, apply, back)
        return out.reshape(*lead, *out.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """A x, (..., *out_shape). Raises ValueError or TypeError naming the operator and what it expected."""
        self._check(x, self.in_shape, self.in_dtype, "forward")
        return self._run(x, self.in_shape, self._forward, self._adjoint)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y, (..., *in_shape)."""
        self._check(y, self.out_shape, self.out_dtype, "adjoint")
        return self._run(y, self.out_shape, self._adjoint, self._forward)

    def gram(self, x: Tensor) -> Tensor:
        """A^H A x, (..., *in_shape)."""
        self._check(x, self.in_shape, self.in_dtype, "gram")
        return self._run(x, self.in_shape, self._gram, self._gram)

    def prox(
        self, z: Tensor, y: Tensor, weight: float | Tensor, *, iterations: int = 30, tolerance: float = 1e-5
    ) -> Tensor:
        """argmin_x |A x - y|^2 + weight |x - z|^2, by CG from z; overridden by closed forms.

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
        """Largest singular value, by 30 power iterations (a lower bound, within about 1 %)."""
        g = generator if generator is not None else torch.Generator().manual_seed(0)
        start = torch.randn(self.in_shape, dtype=self.in_dtype, generator=g).to(device)
        return power_norm(self.gram, start)

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator."""
        return Adjoint(self)

    @property
    def sampled(self) -> Tensor | None:
        """Which samples A gives at all, bool, broadcasts to (B, *out_shape); None: all of them."""
        return None

    @property
    def support(self) -> Tensor | None:
        """The pixels that A sees, bool, broadcasts to (B, *in_shape); None: all of them."""
        return None

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        """(A @ B) x = A (B x)."""
        if not isinstance(other, LinearOperator):
            raise TypeError(f"{type(self).__name__} @ {type(other).__name__}: to apply an operator, call it: A(x)")
        return Composition(self, other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_shape} {self.in_dtype} -> {self.out_shape} {self.out_dtype})"


class Adjoint(LinearOperator):
    """A^H as an operator; (A.H).H is A."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.in_shape, self.out_shape = operator.out_shape, operator.in_shape
        self.in_dtype, self.out_dtype = operator.out_dtype, operator.in_dtype

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    @property
    def H(self) -> LinearOperator:
        return self.operator

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(Diagonal(torch.arange(15.0).reshape(3, 5) - 4))


class Composition(LinearOperator):
    """(outer @ inner) x = outer(inner(x))."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.in_shape != inner.out_shape or outer.in_dtype != inner.out_dtype:
            raise ValueError(f"cannot compose: {outer!r} does not take what {inner!r} gives")
        self.outer, self.inner = outer, inner
        self.in_shape, self.out_shape = inner.in_shape, outer.out_shape
        self.in_dtype, self.out_dtype = inner.in_dtype, outer.out_dtype

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _gram(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._gram(self.inner._forward(x)))

    @property
    def sampled(self) -> Tensor | None:
        return self.outer.sampled

    @property
    def support(self) -> Tensor | None:
        return self.inner.support

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(Diagonal(torch.arange(15.0).reshape(3, 5)), Diagonal(torch.ones(3, 5) * -2))


class Diagonal(LinearOperator):
    """y = d * x elementwise; d (*shape) for every item, or (B, *shape) for a batch of B."""

    def __init__(self, diagonal: Tensor, *, item_ndim: int | None = None, dtype: torch.dtype | None = None) -> None:
        ndim = diagonal.ndim if item_ndim is None else item_ndim
        self.diagonal = diagonal
        self.in_shape = self.out_shape = tuple(diagonal.shape[diagonal.ndim - ndim :])
        self.in_dtype = self.out_dtype = diagonal.dtype if dtype is None else dtype

    def _check(self, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
        super()._check(x, shape, dtype, name)
        if x.device != self.diagonal.device:
            raise ValueError(f"Diagonal.{name}: the diagonal is on {self.diagonal.device}, the data on {x.device}")

    def _forward(self, x: Tensor) -> Tensor:
        return self.diagonal * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.diagonal.conj() * y

    def prox(
        self, z: Tensor, y: Tensor, weight: float | Tensor, *, iterations: int = 30, tolerance: float = 1e-5
    ) -> Tensor:
        """Closed form: (conj(d) y + weight z) / (|d|^2 + weight)."""
        self._check(z, self.in_shape, self.in_dtype, "prox")
        self._check(y, self.out_shape, self.out_dtype, "prox")
        mu = torch.as_tensor(weight, dtype=z.real.dtype, device=z.device)
        mu = mu.reshape(mu.shape + (1,) * len(self.in_shape)) if mu.ndim else mu
        return (self.diagonal.conj() * y + mu * z) / (self.diagonal.abs().square() + mu)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(torch.arange(15.0).reshape(3, 5) - 7)
        yield cls(torch.complex(torch.arange(7.0), 3 - torch.arange(7.0)))


def whiten(A: LinearOperator, root: Tensor) -> LinearOperator:
    """diag(root) A: the operator of whitened data, root = sqrt(precision), (B or 1, *out_shape)."""
    full = root.expand(*root.shape[: root.ndim - len(A.out_shape)], *A.out_shape)
    return Diagonal(full, item_ndim=len(A.out_shape), dtype=A.out_dtype) @ A
