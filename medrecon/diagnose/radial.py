"""Power of images by radius in frequency."""

from __future__ import annotations

import torch
from torch import Tensor


def radial_power(x: Tensor, bins: int) -> Tensor:
    """Mean |DFT|^2 (unitary, each image's own mean taken off) in `bins` rings from 0 to Nyquist; x (..., H, W)."""
    height, width = x.shape[-2:]
    x = x.double() - x.double().mean((-2, -1), keepdim=True)
    power = torch.fft.fft2(x, norm="ortho").abs().square().flatten(0, -3).mean(0)
    rows, cols = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    radius = (rows.square() + cols.square()).sqrt().to(x.device)
    ring = (radius * 2 * bins - 1e-6).ceil().long() - 1  # ring k: above k, up to k + 1, in units of Nyquist / bins
    inside = (ring >= 0) & (ring < bins)
    total = torch.zeros(bins, dtype=torch.float64, device=x.device).index_add_(0, ring[inside], power[inside])
    count = torch.zeros_like(total).index_add_(0, ring[inside], torch.ones_like(power[inside]))
    return (total / count.clamp_min(1)).cpu()


def rings(x: Tensor) -> int:
    """How many rings suit images (..., H, W): 8, fewer where they would be narrower than a frequency."""
    return max(1, min(8, min(x.shape[-2:]) // 2))
