"""Can a simple classifier tell two sets of images apart? The classifier two-sample test (Lopez-Paz and Oquab, arXiv
1610.06545), with kernel ridge regression in closed form, so that nothing has to be trained or downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 32
FOLDS = 4
RIDGE = 0.03


@dataclass(frozen=True)
class Accuracy:
    """Share of the images told right, the mean of both sets' shares: 0.5 is chance; and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


def told_apart(a: Tensor, b: Tensor) -> Accuracy | None:
    """Cross-validated, balanced accuracy of telling a (N, H, W) from b (M, H, W); None below two images a fold.

    A fold is a run of consecutive images of each set, so that neighbouring slices of a subject stay together as far as
    they can. The error counts images as independent, with two right and two wrong ones added (Agresti and Coull, 1998).
    """
    if min(len(a), len(b)) < 2 * FOLDS:
        return None
    kernel = similarity(torch.cat([lowpassed(a), lowpassed(b)]))
    sign = torch.cat([torch.ones(len(a)), -torch.ones(len(b))]).double()
    fold = torch.cat([torch.arange(len(x)) * FOLDS // len(x) for x in (a, b)])
    right = torch.zeros(len(sign), dtype=torch.bool)
    for k in range(FOLDS):
        right[fold == k] = ridge(kernel, sign, fold != k)[fold == k] * sign[fold == k] > 0
    shares = [right[sign == s].double() for s in (1, -1)]
    padded = [(float(x.sum()) + 2, len(x) + 4) for x in shares]
    variance = sum((hits / n) * (1 - hits / n) / n for hits, n in padded)
    return Accuracy(float(sum(x.mean() for x in shares)) / 2, variance**0.5 / 2)


def lowpassed(x: Tensor) -> Tensor:
    """(N, H, W) -> (N, 32, 32), float64; smaller ones stay."""
    size = tuple(min(SIDE, n) for n in x.shape[-2:])
    return interpolate(x[:, None].float(), size, mode="bilinear", antialias=True)[:, 0].double()


def similarity(x: Tensor) -> Tensor:
    """Gaussian kernel of the images (N, s, s), averaged over flips and quarter turns: training turns its slices, so how
    a body lies tells nothing. Its width is the median distance of two images in their best orientation."""
    flat, square = x.flatten(1), x.flatten(1).square().sum(1)
    turned = [torch.rot90(y, turns, (1, 2)).flatten(1) for y in (x, x.flip(-1)) for turns in range(4)]
    distances = torch.stack([square[:, None] + square - 2 * flat @ y.T for y in turned]).clamp_min(0)
    best = distances.amin(0)[~torch.eye(len(x), dtype=torch.bool)]
    return (-distances / best.median().clamp_min(1e-12)).exp().mean(0)


def ridge(kernel: Tensor, sign: Tensor, known: Tensor) -> Tensor:
    """Decision values (N,) of kernel ridge regression with an offset on the images `known`, both sets alike."""
    k, y = kernel[known][:, known], sign[known]
    weight = torch.where(y > 0, 0.5 / (y > 0).sum(), 0.5 / (y < 0).sum())
    # The offset makes weighted residuals sum to 0: (K + ridge/weight) alpha + offset = y, sum alpha = 0.
    n = len(y)
    system = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    system[:n, :n] = k + torch.diag(RIDGE / (weight * n) * k.diagonal().mean())
    system[:n, n], system[n, :n] = 1.0, 1.0
    solution = torch.linalg.solve(system, torch.cat([y, y.new_zeros(1)]))
    return kernel[:, known] @ solution[:n] + solution[n]
