"""What a scanner sees, and what of it is patient: field-of-view mask, body mask, couch removal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrecon.geometry import Geometry, ImageGrid

TISSUE = -400.0
"""HU above which a voxel may be body or couch: air, foam and lung lie below, skin and fat above."""
THIN = 7.0
"""Thickness [mm] up to which a shell or a plate is taken for couch, clothing or headrest."""
OPEN, AIR = 0.35, -950.0
"""A lung that is cut open has less than this share of its outline at the edge of the image, and more HU than air."""
PADDING = -1023.0
"""HU that a scanner writes where it saw nothing, or less."""
SMALL = 0.05
"""A part belongs to the body (an arm beside it) from this share of the largest part's volume."""


def field_of_view_radius(geometry: Geometry) -> float:
    """Radius [mm] around the rotation centre of the disc that the detector covers in every view.

    The nearer end of the detector decides: an offset detector sees more over a full turn, but not in every view.
    """
    (x, y), (u, v) = (np.moveaxis(part[:, [0, -1]], -1, 0) for part in geometry.rays())
    ends = (y * u - x * v) / np.hypot(u, v)
    # Signed distances of the outermost rays from the centre: the two must lie on both sides of it.
    low, high = np.sort(ends, axis=1).T
    return float(max(0.0, np.minimum(-low, high).min()))


def field_of_view_mask(geometry: Geometry, grid: ImageGrid) -> Tensor:
    """(H, W) bool: pixel centres that every view sees."""
    x, y = (torch.from_numpy(a) for a in grid.coordinates())
    return y[:, None].square() + x.square() <= field_of_view_radius(geometry) ** 2


def body_mask(hu: Tensor, spacing: tuple[float, float]) -> Tensor:
    """(Z, H, W) bool: the body with its cavities, without couch, headrest, clothing and cables.

    Tissue (over -400 HU) is opened slice by slice with a disc of 7 mm, which takes away thin shells and what
    touches the body through them. Of the parts that are left, connected through the slices, the largest and those of
    at least 5 % of it (arms) are body; they grow back into their tissue, and holes (lungs, bowel) are filled slice by
    slice, with lungs that the edge of the field of view cuts open. A slice without tissue is all False.

    Args:
        hu: one slice (H, W) or slices (Z, H, W), in HU; padding below -1000 is air.
        spacing: (row, column) pitch [mm].
    """
    from scipy import ndimage

    values = hu.detach().cpu().numpy().reshape(-1, *hu.shape[-2:])
    tissue = values > TISSUE
    core = ndimage.binary_opening(tissue, _disc(THIN / 2, spacing))
    labels, count = ndimage.label(core, np.ones((3, 3, 3)))
    if count == 0:
        return torch.zeros(hu.shape, dtype=torch.bool, device=hu.device)
    sizes = np.bincount(labels.ravel())[1:]
    body = np.isin(labels, 1 + np.flatnonzero(sizes >= SMALL * sizes.max()))
    body = tissue & ndimage.binary_dilation(body, _disc(THIN / 2, spacing))
    body = np.stack([_filled(plane, image) for plane, image in zip(body, values, strict=True)])
    return torch.from_numpy(body).reshape(hu.shape).to(hu.device)


def remove_couch(hu: Tensor, spacing: tuple[float, float], air: float = -1000.0) -> Tensor:
    """A copy of hu (Z, H, W) or (H, W) with `air` outside `body_mask`."""
    return torch.where(body_mask(hu, spacing), hu, air)


def _filled(body: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """(H, W) body with its holes, and with what is open only to the edge of the image or to padding and is no air."""
    from scipy import ndimage

    body = ndimage.binary_fill_holes(body)
    seen = np.zeros(np.add(body.shape, 2), dtype=bool)  # the image with a frame of padding
    seen[1:-1, 1:-1] = hu > PADDING
    seen = ndimage.binary_opening(seen)
    rim = ndimage.binary_dilation(~seen)[1:-1, 1:-1]
    labels, count = ndimage.label(~body & seen[1:-1, 1:-1])
    for label in range(1, count + 1):
        part = labels == label
        outline = part & ~ndimage.binary_erosion(part)
        if (outline & rim).sum() < OPEN * outline.sum() and hu[part].mean() > AIR:
            body = body | part
    return np.asarray(body)


def _disc(radius: float, spacing: tuple[float, float]) -> np.ndarray:
    """(1, h, w) structuring element: offsets within `radius` [mm], and at least the direct neighbours."""
    radius = max(radius, max(spacing))
    y, x = (np.arange(-int(radius / s), int(radius / s) + 1) * s for s in spacing)
    return (y[:, None] ** 2 + x**2 <= radius**2 * (1 + 1e-9))[None]
