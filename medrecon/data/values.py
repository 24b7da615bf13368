"""Image values as int16: whole HU, or magnitudes by the scale of their volume."""

from __future__ import annotations

import torch
from torch import Tensor

COUNTS = 8191.0
"""stored counts per unit of an MR magnitude scaled to about 1; int16 then holds up to 4 times that"""


def magnitude_scale(data: Tensor) -> float:
    """The 99.9th percentile of a volume's magnitudes, of every n-th voxel when there are over a million.

    Raises:
        ValueError: it is not positive.
    """
    scale = float(torch.quantile(data.flatten()[:: max(1, data.numel() // 1_000_000)].float(), 0.999))
    if scale <= 0:
        raise ValueError(f"the 99.9th percentile of the magnitudes is {scale:g}; is the volume empty?")
    return scale


def counts(data: Tensor) -> Tensor:
    """Rounded and clipped to int16."""
    return data.round().clamp(-32768, 32767).to(torch.int16)


def resized(data: Tensor, size: int) -> Tensor:
    """int16 slices (N, H, W) -> (N, size, size), antialiased; a rectangle is padded to a square first."""
    height, width = data.shape[-2:]
    if height != width:
        side = max(height, width)
        low = int(data.min())
        square = torch.full((len(data), side, side), low, dtype=data.dtype)
        top, left = (side - height) // 2, (side - width) // 2
        square[:, top : top + height, left : left + width] = data
        data = square
    if data.shape[-1] == size:
        return data
    small = torch.nn.functional.interpolate(data[:, None].float(), (size, size), mode="bilinear", antialias=True)
    return small[:, 0].round().to(torch.int16)
