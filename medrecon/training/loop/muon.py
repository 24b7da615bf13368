"""Muon: the momentum of every weight matrix, orthogonalised; AdamW for the rest (K. Jordan, 2024; arXiv 2502.16982)."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

SMALLEST = 16  # a matrix with fewer rows or columns (biases, gains, tables of classes) has no directions to balance
MOMENTUM = 0.95
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


class Muon(torch.optim.AdamW):
    """One learning rate for all: steps along matrices have the size of AdamW's (arXiv 2502.16982, eq. 4).

    The weight of a convolution is the matrix of its output channels by the rest. It takes fewer steps than AdamW to
    the same loss, for the steep directions of a matrix do not hold back the flat ones (docs/experiments/README.md).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None and p.ndim > 1 and min(len(p), p[0].numel()) >= SMALLEST:
                    alike[p.flatten(1).shape].append((p, p.grad))
                    p.grad = None  # AdamW steps the rest
            for matrices in alike.values():
                self._step_matrices(matrices, group["lr"], group["weight_decay"])
        super().step()

    def _step_matrices(self, matrices: list[tuple[Tensor, Tensor]], lr: float, weight_decay: float) -> None:
        """Nesterov's momentum, all matrices of one shape at once."""
        moved = []
        for p, grad in matrices:
            if not self.state[p]:
                self.state[p]["exp_avg"] = torch.zeros_like(p)
            average = self.state[p]["exp_avg"].lerp_(grad, 1 - MOMENTUM)
            moved.append(grad.lerp(average, MOMENTUM).flatten(1))
        for (p, _), direction in zip(matrices, orthogonalised(torch.stack(moved)), strict=True):
            p.mul_(1 - lr * weight_decay)
            p.add_(direction.view_as(p), alpha=-0.2 * max(direction.shape) ** 0.5 * lr)
