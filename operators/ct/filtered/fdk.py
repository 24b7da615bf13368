"""FDK: filtered backprojection of a circular cone-beam scan (Feldkamp, Davis, Kress 1984, JOSA A 1, 612-619)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.geometry.cone import check_source_outside
from medrecon.numerics.threads import compiled
from medrecon.operators.ct.filtered.ramp import Window, ramp_filter
from medrecon.operators.ct.filtered.shifted import widened
from medrecon.operators.ct.filtered.weights import ray_weights

CHUNK = 2**22
"""Numbers that are filtered at a time: bounds the memory of the transform."""
BLOCK = 4
"""Image rows that a thread owns at a time."""


def fdk(projections: Tensor, geometry: ConeGeometry, grid: VolumeGrid, window: Window = "ramp") -> Tensor:
    """Reconstruct attenuation (..., Z, H, W) [1/mm] from line integrals (..., V, R, D), on their device.

    Full scans, short scans (Parker weights of the fan in the middle, for every row) and any spacing of views; flat
    and arc detectors; in a full turn also those shifted to one side (Wang 2002). Exact in the plane of the source
    only; farther away it underestimates, the more the larger the cone angle (Feldkamp's artefact: one circle does not
    measure all that a volume needs).

    A voxel that is above or below the beam in some views takes the nearest detector row there, which is right for
    objects that change little along z; a voxel that no view sees is 0. Beyond the detector's ends the object counts
    as absent. Computes in float32, float64 data in float64, on the CPU, and has no gradient: use the operator's
    adjoint for that. Memory beside input and output: one filtered copy of the projections of one item.

    Args:
        window: apodisation of the ramp up to the detector's Nyquist frequency.

    Raises:
        ValueError: projections of another shape than the geometry says, or that want a gradient; an unknown window, a
            helical scan, a flying focal spot, a source inside the volume, or a shifted detector that hardly reaches
            beyond the rotation axis.
    """
    _check(projections, geometry, grid)
    if torch.is_grad_enabled() and projections.requires_grad:
        raise ValueError("fdk: it has no gradient; give projections.detach(), or use the operator's adjoint")
    work = torch.float64 if projections.dtype == torch.float64 else torch.float32
    lead = projections.shape[:-3]
    items = projections.detach().to("cpu", work).reshape(math.prod(lead), *geometry.shape)
    out = torch.empty(len(items), *grid.shape, dtype=work)
    for item, volume in zip(items, out, strict=True):
        _backproject(_filtered(item, geometry, window), volume.numpy(), geometry, grid)
    return out.reshape(*lead, *grid.shape).to(projections.device, projections.dtype)


def _check(projections: Tensor, geometry: ConeGeometry, grid: VolumeGrid) -> None:
    if tuple(projections.shape[-3:]) != geometry.shape:
        raise ValueError(
            f"fdk: the geometry has (views, rows, columns) = {geometry.shape}, "
            f"the projections {tuple(projections.shape)}"
        )
    if np.ptp(geometry.source_heights()) > 1e-3 * geometry.det_spacing[0]:
        raise ValueError(
            "fdk: the scan is helical, and FDK is for circles; reconstruct it with an iterative solver "
            "on the cone-beam operator, or rebin it to fan-beam slices"
        )
    if geometry.focal_shifts:
        raise ValueError(
            "fdk: the scan has a flying focal spot, which FDK does not know; reconstruct it with an "
            "iterative solver on the cone-beam operator, or rebin it to fan-beam slices"
        )
    check_source_outside(geometry, grid)


def cone_cosines(geometry: ConeGeometry) -> NDArray[np.float64]:
    """Return the cosine of the angle of each ray to the plane of the source, (R, D)."""
    climb = (geometry.row_heights()[0] - geometry.source_heights()[0])[:, None]
    plane = geometry.plane()
    run = plane.source_detector / (np.cos(plane.fan_angles()) if plane.detector == "flat" else np.ones(plane.det_count))
    return np.asarray(run / np.hypot(run, climb))


def _filtered(item: Tensor, geometry: ConeGeometry, window: Window) -> NDArray[np.floating]:
    """Weighted and filtered projections (V, D + 2, R) of the detector with two equal sides, a column of zeros at both
    ends."""
    plane = geometry.plane()
    wide, lacking = widened(plane)
    views, rows, columns = len(plane.angles), geometry.det_shape[0], wide.det_count
    angle = plane.det_spacing / plane.source_detector if plane.detector == "arc" else 0.0
    weights = torch.from_numpy(ray_weights(plane)).to(item)[:, None]
    cosines = torch.from_numpy(cone_cosines(geometry)).to(item)
    out = item.new_zeros(views, columns + 2, rows)
    chunk = max(1, CHUNK // (4 * rows * columns))
    for first in range(0, views, chunk):
        part = slice(first, first + chunk)
        rays = torch.nn.functional.pad(item[part] * weights[part] * cosines, lacking)
        out[part, 1:-1] = ramp_filter(rays, plane.iso_spacing, window, angle).mT
    return out.numpy()


def _backproject(
    filtered: NDArray[np.floating], volume: NDArray[np.floating], geometry: ConeGeometry, grid: VolumeGrid
) -> None:
    from medrecon.operators.ct.filtered import fdk_kernels

    (plane, _), (x, y) = widened(geometry.plane()), grid.plane().coordinates()
    scale = plane.source_detector / geometry.source_origin  # detector columns are counted at the rotation axis
    source, pitch = geometry.source_heights()[0], geometry.det_spacing[0]
    run = compiled(fdk_kernels, "backproject")
    run(
        filtered,
        volume,
        np.cos(geometry.angles),
        np.sin(geometry.angles),
        x,
        y,
        geometry.detector == "arc",
        geometry.source_origin,
        plane.positions()[0] / scale,
        plane.iso_spacing,
        plane.source_detector / pitch,
        grid.heights()[0] - source,
        grid.spacing[0],
        (geometry.row_heights()[0, 0] - source) / pitch,
        BLOCK,
    )
