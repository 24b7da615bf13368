"""How noisy each pixel of a reconstruction is: by pseudo-replicas for any reconstruction, exactly for SENSE.

Standard deviations are those of complex pixels, SD^2 = E|n|^2, in units of the data's noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

DENSE = 4096
"""pixels up to which a mask without whole columns or rows is solved densely: 256 MB"""


def pseudo_replica(
    reconstruct: Callable[[Tensor], Tensor],
    noisy: Callable[[torch.Generator], Tensor],
    *,
    replicas: int = 100,
    generator: torch.Generator,
) -> Tensor:
    """SD of each pixel over reconstructions of the same data with ever new noise (Robson, MRM 60 (2008) 895-907).

    Exact in the limit for a linear reconstruction, from any data: the noise need not be in them (noise already there
    adds nothing to the spread). Of N replicas it is known to 1 / sqrt(4 N) of itself for complex and to 1 / sqrt(2 N)
    for real images. A reconstruction that is not linear has the map of the object and noise level it is given.

    Args:
        reconstruct: data -> image, deterministic.
        noisy: a copy of the data with noise drawn from the generator: `lambda g: MRINoise(sigma).simulate(y, mask, g)`.
            For unit noise on whitened data take MRINoise(1.0).

    Returns:
        SD, real, shaped like the image.

    Raises:
        ValueError: fewer than 2 replicas.
    """
    if replicas < 2:
        raise ValueError(f"pseudo_replica: at least 2 replicas, got {replicas}")
    return deviation(reconstruct(noisy(generator)) for _ in range(replicas))


def deviation(images: Iterable[Tensor]) -> Tensor:
    """Return the SD of each pixel over images, real or complex, which are held one by one.

    Raises:
        ValueError: fewer than 2.
    """
    each = iter(images)
    first = next(each, torch.empty(0))
    # Sums of differences from the first one: the large mean of the image does not cost digits.
    total, square, count = torch.zeros_like(first), torch.zeros_like(first.real), 1
    for image in each:
        step = image - first
        total, square, count = total + step, square + step.abs().square(), count + 1
    if count < 2:
        raise ValueError("deviation: at least 2 images")
    return ((square - total.abs().square() / count).clamp_min(0) / (count - 1)).sqrt()


def sense_noise(maps: Tensor, mask: Tensor) -> Tensor:
    """SD of the SENSE image, sqrt(diag((A^H A)^-1)), of data with unit noise (Pruessmann, MRM 42 (1999) 952-962).

    A is `CartesianMRI(maps, mask)` without regularisation. For masks of whole columns or rows the image falls into
    lines that fold onto themselves alone, and their (W, W) systems are solved; others densely.

    Args:
        maps: (C, H, W), whitened: unit noise in every coil, uncorrelated (`coils.whiten_coils`). mask: (H, W).

    Returns:
        (H, W) float64, 0 where no coil sees anything.

    Raises:
        ValueError: shapes that do not fit, an image too large for a mask without whole lines, or a mask and maps that
            leave a pixel undetermined.
    """
    if maps.ndim != 3 or not maps.is_complex() or mask.shape != maps.shape[-2:]:
        raise ValueError(f"sense_noise: needs maps (C, H, W) and a mask (H, W), got {[*maps.shape]}, {[*mask.shape]}")
    weights, maps = mask.double().square(), maps.to(torch.complex128)
    if bool((weights == weights[:1]).all()):
        return torch.stack([_line_noise(maps[:, h], weights[0]) for h in range(maps.shape[1])])
    if bool((weights == weights[:, :1]).all()):
        return sense_noise(maps.mT, mask.mT).mT
    if mask.numel() > DENSE:
        raise ValueError(
            f"sense_noise: a mask without whole columns or rows is solved densely, up to {DENSE} pixels; "
            f"it has {mask.numel()}: take pseudo_replica"
        )
    height, width = mask.shape
    spread = _point_spread(weights, (-2, -1))
    h, w = (torch.arange(n, device=maps.device) for n in (height, width))
    rows, cols = (h[:, None] - h) % height, (w[:, None] - w) % width
    gram = spread[rows[:, None, :, None], cols[None, :, None, :]].reshape(mask.numel(), mask.numel())
    return _deviation(gram * _overlap(maps.flatten(1)), maps.flatten(1)).reshape(height, width)


def g_factor(maps: Tensor, mask: Tensor) -> Tensor:
    """SD / (SD of full sampling * sqrt(R)), >= 1: the noise that unfolding adds, (H, W); 0 where no coil sees anything.

    R is the true one, all samples over acquired ones; mask: bool. Arguments and errors as `sense_noise`.
    """
    sampled = mask != 0
    accelerated = sense_noise(maps, sampled)
    # Full sampling: A^H A is the sum of |maps|^2, pixel by pixel.
    full = maps.to(torch.complex128).abs().square().sum(0).sqrt()
    return accelerated * full * (float(sampled.sum()) / mask.numel()) ** 0.5


def _line_noise(maps: Tensor, weights: Tensor) -> Tensor:
    """SD along one line: maps (C, W), weights (W,) of its samples."""
    index = torch.arange(len(weights), device=maps.device)
    gram = _point_spread(weights, (-1,))[(index[:, None] - index) % len(weights)]
    return _deviation(gram * _overlap(maps), maps)


def _point_spread(weights: Tensor, axes: tuple[int, ...]) -> Tensor:
    """F^H diag(weights) F is a convolution; its kernel, which starts at the origin."""
    return torch.fft.ifftn(torch.fft.ifftshift(weights, dim=axes), dim=axes)


def _overlap(maps: Tensor) -> Tensor:
    """sum_c conj(S_c(r)) S_c(r'), (n, n), of maps (C, n)."""
    return maps.mH @ maps


def _deviation(gram: Tensor, maps: Tensor) -> Tensor:
    """sqrt(diag(gram^-1)) where a coil sees anything, 0 elsewhere."""
    seen = maps.abs().square().sum(0) > 0
    inner = gram[seen][:, seen]
    out = torch.zeros(len(gram), dtype=torch.float64, device=gram.device)
    if inner.numel() == 0:
        return out
    factor, info = torch.linalg.cholesky_ex(inner)
    if int(info) != 0 or float(factor.diagonal().abs().min()) < 1e-7 * float(factor.diagonal().abs().max()):
        raise ValueError(
            "sense_noise: the mask and the coil maps leave pixels undetermined (more fold together than the coils "
            "tell apart); sample more, or take pseudo_replica of a regularised reconstruction"
        )
    out[seen] = torch.cholesky_inverse(factor).diagonal().real.sqrt()
    return out
