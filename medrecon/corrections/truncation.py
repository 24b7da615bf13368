"""Truncated projections: a detector that is too short for the object, made wider by extrapolation."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from medrecon.core.units import MU_WATER
from medrecon.geometry import Geometry

FIT = 0.05
"""Share of the detector at each end to which the cylinder is fitted."""


def pad_truncated(
    p: Tensor, geometry: Geometry, width: float | None = None, mu_water: float = MU_WATER
) -> tuple[Tensor, Geometry]:
    """Line integrals (..., V, D) on a detector that is longer by `width` at each end, and its geometry; for FBP.

    Beyond each end of each view the object is taken for a cylinder of water of any radius and place (Hsieh et al.,
    Med. Phys. 31:2385, 2004): with u the distance from the last ray and p_e its value,

        p(u)^2 = p_e^2 + b u - 4 mu_water^2 u^2,

    where b is fitted to the rays inside. Where that is still positive at the end of the longer detector, u is
    stretched so that it just falls to 0 there. Views that are not truncated (p_e = 0) get zeros. A constant offset in
    the truncated region is lost for good: the filter only needs a smooth and plausible end. Iterative solvers should
    rather get the true data and an image grid that covers the object.

    Args:
        width: mm at the rotation centre; half of the detector by default.

    Raises:
        ValueError: line integrals of another shape than the geometry says, a detector of under 4 elements, or a
            negative width.
    """
    if tuple(p.shape[-2:]) != (len(geometry.angles), geometry.det_count) or geometry.det_count < 4:
        raise ValueError(
            f"pad_truncated: the geometry has {len(geometry.angles)} views of {geometry.det_count} >= 4 "
            f"elements, the line integrals are {tuple(p.shape)}"
        )
    if width is not None and not 0 <= width < math.inf:
        raise ValueError(f"pad_truncated: width must be >= 0 mm, got {width}")
    count = geometry.det_count // 2 if width is None else math.ceil(width / geometry.iso_spacing)
    right = _beyond(p, count, geometry.iso_spacing, mu_water)
    left = _beyond(p.flip(-1), count, geometry.iso_spacing, mu_water).flip(-1)
    return torch.cat([left, p, right], dim=-1), replace(geometry, det_count=geometry.det_count + 2 * count)


def _beyond(p: Tensor, count: int, spacing: float, mu_water: float) -> Tensor:
    """(..., V, count) behind the last ray."""
    near = max(3, round(FIT * p.shape[-1]))
    end = p[..., -1:].clamp_min(0)
    curvature = 4 * mu_water**2
    inside = -spacing * torch.arange(near, device=p.device, dtype=p.dtype).flip(0)  # u of the last rays
    rest = p[..., -near:].clamp_min(0).square() - end.square() + curvature * inside.square()
    b = (rest * inside).sum(-1, keepdim=True) / inside.square().sum()
    u = spacing * torch.arange(1, count + 1, device=p.device, dtype=p.dtype)
    zero = (b + (b.square() + 4 * curvature * end.square()).sqrt()) / (2 * curvature)  # where p falls to 0
    u = u * (zero / (spacing * (count + 1))).clamp_min(1)
    return torch.where(end > 0, (end.square() + b * u - curvature * u.square()).clamp_min(0).sqrt(), 0)
