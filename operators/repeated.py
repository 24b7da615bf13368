"""One batch of items several times over: trajectories, samples or replicas as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.operators.spectrum import Spectrum


class Repeated(LinearOperator):
    """A for `count` batches in one, (count B, *in_shape), one after another, where A may know each of B items apart.

    An A with parameters of each item (coil maps, masks, phases) is applied batch by batch; with B = 1 all run at once.
    """

    def __init__(self, operator: LinearOperator, count: int) -> None:
        self.operator, self.count = operator, count
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.in_dtype, self.out_dtype = operator.in_dtype, operator.out_dtype
        self.items = 1 if operator.items == 1 else count * operator.items

    def _each(self, apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if len(x) <= self.count:
            return apply(x)
        return torch.cat([apply(part) for part in x.split(len(x) // self.count)])

    def _forward(self, x: Tensor) -> Tensor:
        return self._each(self.operator.forward_batch, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._each(self.operator.adjoint_batch, y)

    def _gram(self, x: Tensor) -> Tensor:
        return self._each(self.operator.gram_batch, x)

    def prox(
        self, z: Tensor, y: Tensor, weight: float | Tensor, *, iterations: int = 30, tolerance: float = 1e-5
    ) -> Tensor:
        """Return what the operator itself makes of each batch; z (..., *in_shape), weight a number or one an item."""
        self._check(z, self.in_shape, self.in_dtype, "prox")
        self._check(y, self.out_shape, self.out_dtype, "prox")
        lead = z.shape[: z.ndim - len(self.in_shape)]
        weights = torch.as_tensor(weight, dtype=z.real.dtype, device=z.device).expand(lead).reshape(-1)
        y = y.expand(*lead, *self.out_shape).reshape(-1, *self.out_shape)
        flat = z.reshape(-1, *self.in_shape)
        size = max(len(flat) // self.count, 1) if len(flat) > self.count else max(len(flat), 1)
        parts = zip(flat.split(size), y.split(size), weights.split(size))
        done = [self.operator.prox(*part, iterations=iterations, tolerance=tolerance) for part in parts]
        return torch.cat(done).reshape(z.shape)

    @property
    def sampled(self) -> Tensor | None:
        return self._times(self.operator.sampled, len(self.out_shape))

    @property
    def support(self) -> Tensor | None:
        return self._times(self.operator.support, len(self.in_shape))

    @property
    def spectrum(self) -> Spectrum | None:
        inner = self.operator.spectrum
        if inner is None:
            return None
        d = self._times(inner.d, len(self.out_shape))
        assert d is not None
        return Spectrum(d, partial(self._each, inner.components), partial(self._each, inner.image))

    def _times(self, known: Tensor | None, ndim: int) -> Tensor | None:
        """What is known of each item, for all batches; what is known of all stays as it is."""
        if known is None or known.ndim <= ndim or len(known) == 1:
            return known
        return known.repeat(self.count, *(1,) * ndim)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(Diagonal(torch.arange(15.0).reshape(3, 5) - 4), 2)
        yield cls(Diagonal(torch.arange(5.0).reshape(1, 5) - 2, item_ndim=1), 3)
