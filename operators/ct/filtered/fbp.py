"""Filtered backprojection: parallel rays; fans on flat and arc detectors; full, short or limited scans."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.geometry import FanGeometry, Geometry, ImageGrid
from medrecon.operators.ct.filtered.backprojection import backproject
from medrecon.operators.ct.filtered.ramp import Window, ramp_filter
from medrecon.operators.ct.filtered.rebin import fan_to_parallel
from medrecon.operators.ct.filtered.shifted import widened
from medrecon.operators.ct.filtered.weights import angular_weights, parker_weights, ray_weights

__all__ = ["Window", "angular_weights", "fbp", "parker_weights", "ray_weights"]


def fbp(sinogram: Tensor, geometry: Geometry, grid: ImageGrid, window: Window = "ramp") -> Tensor:
    """Reconstruct attenuation (..., H, W) [1/mm] from line integrals (..., V, D), on their device; differentiable.

    Any arc, order and spacing of views: each view counts for its share of the arc, and rays that were measured twice
    share their weight (Parker 1982 for fan beams). Where the arc covers 180 degrees (fan: 180 degrees and the fan
    angle) the values are right in HU. A shorter arc gives what the measured directions alone say: directions that
    were not seen count as zero, so structures along them are missing and the values too low.

    In a full turn with the detector shifted to one side, lines seen once count twice (Wang 2002). A scan with a
    flying focal spot is rebinned to parallel views first (`fan_to_parallel`).

    Args:
        window: apodisation of the ramp up to the Nyquist frequency of the detector (after rebinning, of the parallel
            rays).

    Raises:
        ValueError: a sinogram of another shape than the geometry says, an unknown window, a fan's source inside the
            image, a shifted detector that hardly reaches beyond the rotation axis.

    Source: Kak & Slaney, Principles of Computerized Tomographic Imaging, ch. 3.
    """
    item = (len(geometry.angles), geometry.det_count)
    if tuple(sinogram.shape[-2:]) != item:
        raise ValueError(f"fbp: the geometry has (views, detectors) = {item}, the sinogram {tuple(sinogram.shape)}")
    if isinstance(geometry, FanGeometry):
        if geometry.focal_shifts:
            return fbp(*fan_to_parallel(sinogram, geometry), grid, window)
        if geometry.source_origin <= grid.reach:
            raise ValueError(
                f"fbp: the image reaches {grid.reach:.1f} mm from the rotation centre, beyond the source "
                f"at {geometry.source_origin:.1f} mm; check the units"
            )
    work = sinogram.dtype if sinogram.dtype in (torch.float32, torch.float64) else torch.float32
    rays = sinogram.reshape(-1, *item).to(work)
    rays = rays * torch.from_numpy(ray_weights(geometry)).to(rays)
    geometry, lacking = widened(geometry)
    rays = torch.nn.functional.pad(rays, lacking)  # their weight is 0; filtered, they are not
    angle = 0.0
    if isinstance(geometry, FanGeometry) and geometry.detector == "arc":
        angle = geometry.det_spacing / geometry.source_detector
    image = backproject(ramp_filter(rays, geometry.iso_spacing, window, angle), geometry, grid)
    return image.reshape(*sinogram.shape[:-2], *grid.shape).to(sinogram.dtype)
