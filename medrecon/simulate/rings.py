"""Detector elements of wrong gain and dead ones: what makes rings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def add_rings(
    p: Tensor, generator: torch.Generator, gain: float = 0.01, dead: Sequence[int] = (), dark: float = 11.0
) -> Tensor:
    """Line integrals (..., V, D) of a detector whose elements have other gains than its calibration says.

    p_j - ln(1 + gain e_j), e_j ~ Normal(0, 1), the same for all views and slices.

    Args:
        gain: standard deviation of the gains; below 1 / 5, so that none is negative.
        dead: elements without signal; they read `dark`, ln i0 by default for 6e4 photons.

    Raises:
        ValueError: a gain out of range, or a dead element that is not on the detector.
    """
    count = p.shape[-1]
    if not 0 <= gain < 0.2:
        raise ValueError(f"add_rings: gain must be within [0, 0.2), got {gain}")
    if any(not 0 <= j < count for j in dead):
        raise ValueError(f"add_rings: dead elements must be within 0 .. {count - 1}, got {list(dead)}")
    error = torch.randn(count, dtype=torch.float64, generator=generator).clamp(-4.9, 4.9)
    rings = p - torch.log1p(gain * error).to(p)
    rings[..., list(dead)] = dark
    return rings
