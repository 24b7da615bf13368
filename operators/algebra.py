"""Operators made of tensors and of other operators: Diagonal, Stack, and `whiten`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator, common_items, either
from medrecon.operators.spectrum import Spectrum

__all__ = ["Diagonal", "Stack", "whiten"]


class Diagonal(LinearOperator):
    """y = d * x elementwise; d (*shape) for every item, or (B, *shape) for a batch of B."""

    def __init__(self, diagonal: Tensor, *, item_ndim: int | None = None, dtype: torch.dtype | None = None) -> None:
        ndim = diagonal.ndim if item_ndim is None else item_ndim
        self.diagonal = diagonal
        self.in_shape = self.out_shape = tuple(diagonal.shape[diagonal.ndim - ndim :])
        self.in_dtype = self.out_dtype = diagonal.dtype if dtype is None else dtype
        self.items = len(diagonal) if diagonal.ndim > ndim else 1

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
        """Return the closed form (conj(d) y + weight z) / (|d|^2 + weight)."""
        self._check(z, self.in_shape, self.in_dtype, "prox")
        self._check(y, self.out_shape, self.out_dtype, "prox")
        mu = torch.as_tensor(weight, dtype=z.real.dtype, device=z.device)
        mu = mu.reshape(mu.shape + (1,) * len(self.in_shape)) if mu.ndim else mu
        lead = z.shape[: z.ndim - len(self.in_shape)]
        if 0 in lead:
            return z.new_empty(z.shape)
        if self.items != 1 and not lead.numel() == self.items == lead[-1:].numel():
            raise ValueError(f"{self!r} has settings of {self.items} items, but the batch has {lead.numel()}")
        return (self.diagonal.conj() * y + mu * z) / (self.diagonal.abs().square() + mu)

    @property
    def spectrum(self) -> Spectrum:
        return Spectrum(self.diagonal, components=lambda x: x, image=lambda c: c)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(torch.arange(15.0).reshape(3, 5) - 7)
        yield cls(torch.complex(torch.arange(7.0), 3 - torch.arange(7.0)))
        yield cls(torch.arange(12.0).reshape(3, 4) - 5, item_ndim=1)  # one for each item of a batch of three


class Stack(LinearOperator):
    """y = (A_1 x, A_2 x, ...): the data of several operators of one image, one after the other along their first axis.

    Several scans of one object; data and a penalty, as in min |A x - y|^2 + |B x|^2.

    Args:
        operators: from the same images; their data differ in the length of the first axis only.

    Raises:
        ValueError: no operator, or ones whose images, or the other axes of whose data, differ.
    """

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        if not operators:
            raise ValueError("Stack: needs at least one operator")
        first = operators[0]
        for A in operators:
            same = A.in_shape == first.in_shape and A.out_shape[1:] == first.out_shape[1:]
            if not same or A.in_dtype != first.in_dtype or A.out_dtype != first.out_dtype:
                raise ValueError(
                    f"Stack: {A!r} does not fit below {first!r}: only the first axis of the data may differ"
                )
        self.operators = tuple(operators)
        self.in_shape, self.in_dtype, self.out_dtype = first.in_shape, first.in_dtype, first.out_dtype
        self._lengths = [A.out_shape[0] for A in operators]
        self.out_shape = (sum(self._lengths), *first.out_shape[1:])
        self.items = common_items(*operators)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([A.forward_batch(x) for A in self.operators], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = zip(self.operators, y.split(self._lengths, dim=1), strict=True)
        return torch.stack([A.adjoint_batch(part.contiguous()) for A, part in parts]).sum(0)

    def _gram(self, x: Tensor) -> Tensor:
        return torch.stack([A.gram_batch(x) for A in self.operators]).sum(0)

    @property
    def sampled(self) -> Tensor | None:
        masks = [A.sampled for A in self.operators]
        if all(mask is None for mask in masks):
            return None
        full = [
            torch.ones((self.items, *A.out_shape), dtype=torch.bool)
            if mask is None
            else mask.expand(self.items, *A.out_shape)
            for A, mask in zip(self.operators, masks, strict=True)
        ]
        return torch.cat([mask.to(full[0].device) for mask in full], dim=1)

    @property
    def support(self) -> Tensor | None:
        seen = self.operators[0].support
        for A in self.operators[1:]:
            seen = either(seen, A.support)
        return seen

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        d = torch.arange(15.0).reshape(3, 5) - 4
        yield cls([Diagonal(d), -0.5 * Diagonal(d + 2), Diagonal(d) + Diagonal(d.flip(0))])


def whiten(A: LinearOperator, root: Tensor) -> LinearOperator:
    """Return diag(root) A, the operator of whitened data, root = sqrt(precision), (B or 1, *out_shape)."""
    full = root.expand(*root.shape[: root.ndim - len(A.out_shape)], *A.out_shape)
    return Diagonal(full, item_ndim=len(A.out_shape), dtype=A.out_dtype) @ A
