"""Linear maps in torch's automatic differentiation: backward, forward-mode and vmap, of any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]


def linear_map(x: Tensor, ahead: Apply, back: Apply, items: int = 1) -> Tensor:
    """Apply `ahead` to x (B, *shape), differentiable to any order, `back` being its exact adjoint.

    The derivative of a linear map is the map itself: forward-mode (`torch.func.jvp`) applies `ahead` to the tangent,
    backward applies `back`, whose backward is `ahead` again. `torch.func.vmap` joins its axis to the batch.

    Args:
        items: for how many items of a batch `ahead` has settings of its own: a batch of so many cannot be joined with
            others, and `vmap` then runs one after the other. 1: all items are treated alike.
    """
    out: Tensor = _Linear.apply(x, ahead, back, items)
    return out


class _Linear(torch.autograd.Function):
    """y = A x as torch wants to be told of it."""

    @staticmethod
    def forward(x: Tensor, ahead: Apply, back: Apply, items: int) -> Tensor:
        return ahead(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Apply, Apply, int], output: Tensor) -> None:
        _, ctx.ahead, ctx.back, ctx.items = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return linear_map(grads[0], ctx.back, ctx.ahead, ctx.items), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return linear_map(tangents[0], ctx.ahead, ctx.back, ctx.items)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, ...], x: Tensor, ahead: Apply, back: Apply, items: int
    ) -> tuple[Tensor, int]:
        x = x.movedim(in_dims[0], 0)
        if items == 1 or x.shape[1] == 1:
            return linear_map(x.flatten(0, 1), ahead, back, items).unflatten(0, x.shape[:2]), 0
        return torch.stack([linear_map(batch, ahead, back, items) for batch in x]), 0
