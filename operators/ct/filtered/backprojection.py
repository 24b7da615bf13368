"""Pixel-driven backprojection: each pixel reads every view where it projects. Compiled on the CPU, torch elsewhere."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from medrecon.geometry import FanGeometry, Geometry, ImageGrid
from medrecon.numerics.threads import compiled


def backproject(rays: Tensor, geometry: Geometry, grid: ImageGrid) -> Tensor:
    """Sum over views of the filtered rays (B, V, D), interpolated where each pixel projects -> (B, H, W).

    Fan views count (source distance / distance of the pixel)^2: on a flat detector the distance along the central
    ray, on an arc that along the pixel's own (Kak & Slaney, eq. 3.71 and 3.94). Beyond the detector rays are zero.
    On the CPU float32 goes through compiled loops; other types, devices and gradients through torch.
    """
    # Detector index first, so that one interpolation serves the whole batch; zeros beyond both ends.
    views = torch.nn.functional.pad(rays.permute(1, 2, 0), (0, 0, 1, 1))
    traced = torch.is_grad_enabled() and rays.requires_grad
    compiled = rays.device.type == "cpu" and rays.dtype == torch.float32 and not traced
    image = _compiled(views, geometry, grid) if compiled else _by_torch(views, geometry, grid)
    return image.permute(2, 0, 1)


def _kind(geometry: Geometry) -> int:
    """0 parallel, 1 flat, 2 arc."""
    return 1 + (geometry.detector == "arc") if isinstance(geometry, FanGeometry) else 0


def _first(geometry: Geometry) -> float:
    """Place of the first element, scaled to the rotation centre [mm]."""
    return float(geometry.positions()[0]) * geometry.iso_spacing / geometry.det_spacing


def _compiled(views: Tensor, geometry: Geometry, grid: ImageGrid) -> Tensor:
    from medrecon.operators.ct.filtered import backprojection_kernels as kernels

    image = np.zeros((*grid.shape, views.shape[-1]), dtype=np.float32)
    source = geometry.source_origin if isinstance(geometry, FanGeometry) else math.inf
    run = compiled(kernels, "backproject")
    run(
        views.detach().contiguous().numpy(),
        image,
        np.cos(geometry.angles),
        np.sin(geometry.angles),
        *grid.coordinates(),
        source,
        _first(geometry),
        geometry.iso_spacing,
        _kind(geometry),
    )
    return torch.from_numpy(image)


def _by_torch(views: Tensor, geometry: Geometry, grid: ImageGrid) -> Tensor:
    """One view at a time: memory is that of a few images whatever the number of views."""
    x, y = (torch.from_numpy(a).to(views.device) for a in grid.coordinates())
    first, spacing, last = _first(geometry), geometry.iso_spacing, geometry.det_count
    image = views.new_zeros(math.prod(grid.shape), views.shape[-1])
    for view, angle in zip(views, geometry.angles, strict=True):
        place, weight = _project(x[None, :], y[:, None], angle, geometry)
        position = ((place - first) / spacing + 1).clamp_(0, last + 1).flatten()
        low = position.floor().clamp_(max=last)
        index, part = low.long(), (position - low).to(views.dtype)[:, None]
        value = torch.lerp(view[index], view[index + 1], part)
        image = image + (value if weight is None else value * weight.to(views.dtype).reshape(-1, 1))
    return image.reshape(*grid.shape, -1)


def _project(x: Tensor, y: Tensor, angle: float, geometry: Geometry) -> tuple[Tensor, Tensor | None]:
    """Where points fall on the detector, scaled to the rotation centre [mm], and their weight in this view."""
    c, s = math.cos(angle), math.sin(angle)
    across = x * c + y * s
    if not isinstance(geometry, FanGeometry):
        return across, None
    source = geometry.source_origin
    ahead = source - x * s + y * c
    if geometry.detector == "arc":
        return source * torch.atan2(across, ahead), source**2 / (across.square() + ahead.square())
    return across * (source / ahead), (source / ahead).square()
