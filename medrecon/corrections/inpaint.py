"""Rays that were not measured, or should not be used, filled from their neighbours on the detector."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate_rays(p: Tensor, missing: Tensor) -> Tensor:
    """Line integrals (..., V, D) with those under `missing` (bool, broadcasts to p) interpolated linearly in each view.

    Beyond the last measured ray of a view its value is repeated; a view without any measured ray becomes 0.

    Raises:
        ValueError: a mask that does not broadcast to p.
    """
    try:
        gaps = missing.bool().to(p.device).expand(p.shape)
    except RuntimeError as error:
        raise ValueError(f"mask {tuple(missing.shape)} does not broadcast to {tuple(p.shape)}") from error
    count = p.shape[-1]
    index = torch.arange(count, device=p.device).expand(p.shape)
    left = torch.where(gaps, -1, index).cummax(-1).values
    right = torch.where(gaps, count, index).flip(-1).cummin(-1).values.flip(-1)
    # At the ends of the detector both sides are the one neighbour there is.
    below = torch.where(left < 0, right, left).clamp(0, count - 1)
    above = torch.where(right >= count, left, right).clamp(0, count - 1)
    part = (index - below).to(p.dtype) / (above - below).clamp_min(1)
    filled = torch.lerp(p.gather(-1, below), p.gather(-1, above), part)
    filled = torch.where(gaps.all(-1, keepdim=True), torch.zeros_like(filled), filled)
    return torch.where(gaps, filled, p)
