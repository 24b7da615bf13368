"""Muon: the momentum of every weight matrix, orthogonalised; AdamW for the rest (K. Jordan, 2024; arXiv 2502.16982)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SMALLEST = 16  # a matrix with fewer rows or columns (biases, gains, tables of classes) has no directions to balance
QUINTIC = (3.4445, -4.7750, 2.0315)  # of K. Jordan: takes singular values from 0.001..1 to 0.7..1.2 in five rounds


def orthogonalised(matrices: Tensor, rounds: int = 5) -> Tensor:
    """About U Vᵀ for every U S Vᵀ of (N, rows, columns), by Newton-Schulz rounds in bfloat16: no decomposition."""
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """One learning rate for all: steps along matrices have the size of AdamW's (arXiv 2502.16982, eq. 4).

    The weight of a convolution is the matrix of its output channels by the rest. It takes fewer steps than AdamW to
    the same loss, for the steep directions of a matrix do not hold back the flat ones (docs/prior_choices.md).
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas,
                                      "eps": eps})  # fmt: skip

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            matrices: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in (p for p in group["params"] if p.grad is not None):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                if p.ndim > 1 and min(len(p), p[0].numel()) >= SMALLEST:
                    matrices[p.flatten(1).shape].append(p)
                else:
                    self._adam(p, group)
            for alike in matrices.values():
                self._muon(alike, group)

    def _muon(self, alike: list[Tensor], group: dict[str, Any]) -> None:
        """Nesterov's momentum, all matrices of one shape at once."""
        moved = []
        for p in alike:
            state, grad = self.state[p], p.grad
            assert grad is not None
            if not state:
                state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg"].lerp_(grad, 1 - group["momentum"])
            moved.append(grad.lerp(state["exp_avg"], group["momentum"]).flatten(1))
        update = orthogonalised(torch.stack(moved))
        for p, direction in zip(alike, update, strict=True):
            p.add_(direction.view_as(p), alpha=-0.2 * max(direction.shape) ** 0.5 * group["lr"])

    def _adam(self, p: Tensor, group: dict[str, Any]) -> None:
        state, grad, (beta1, beta2) = self.state[p], p.grad, group["betas"]
        assert grad is not None
        if not state:
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].lerp_(grad.square(), 1 - beta2)
        t = float(state["step"])
        size = (state["exp_avg_sq"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        p.addcdiv_(state["exp_avg"], size, value=-group["lr"] / (1 - beta1**t))
