"""Joseph's projector in three dimensions on the CPU, for cone beams: circular, helical, flat or arc detector.

A ray steps along the image axis, x or y, that it runs along more, and is interpolated bilinearly in the plane that it
crosses: between the two nearest voxels of the other image axis and the two nearest slices (Joseph 1982, IEEE TMI 1,
192-196, in the plane and along z). So the rays of one detector column share all but the interpolation along z.
Rays steeper than 45 degrees against the image plane are still right, only coarser: they cross several slices a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.geometry.cone import check_source_outside
from medrecon.numerics.threads import compiled, forked
from medrecon.operators.ct.joseph import planar

BLOCK = 4
"""Image rows or columns that a thread owns at a time, and views that pass a plane of voxels while it is in cache."""


@dataclass(frozen=True)
class ConeRays:
    """The rays of a scan in index coordinates: tables for each view and detector column, not for each ray.

    Attributes:
        plane: the rays seen along z, (V, D).
        flat: (V, D) distance from the source to the detector column seen along z [slice pitches].
        near, nearer: (V, D) share of the way from the source to the detector at step 0, and its growth a step.
        source: (V,) place of the source along z [slices].
        climb: (V,) height of detector row 0 over the source [slice pitches].
        pitch: row pitch of the detector [slice pitches].
        heights: number of detector rows.
    """

    plane: planar.Rays
    flat: NDArray[np.float64]
    near: NDArray[np.float64]
    nearer: NDArray[np.float64]
    source: NDArray[np.float64]
    climb: NDArray[np.float64]
    pitch: float
    heights: int

    def subset(self, views: Sequence[int]) -> ConeRays:
        """Return the rays of these views."""
        some = list(views)
        return replace(
            self,
            plane=self.plane.subset(some),
            flat=self.flat[some],
            near=self.near[some],
            nearer=self.nearer[some],
            source=self.source[some],
            climb=self.climb[some],
        )


def trace(geometry: ConeGeometry, grid: VolumeGrid) -> ConeRays:
    """Trace the rays of a geometry on a grid, float64 throughout.

    Raises:
        ValueError: a source within the volume, seen along z.
    """
    check_source_outside(geometry, grid)
    fan, image = geometry.plane(), grid.plane()
    plane = planar.trace(fan, image)
    element, along = fan.rays()
    (pitch_y, pitch_x), (x0, _, _, y1) = image.spacing, image.window
    column, row = (element[..., 0] - x0) / pitch_x - 0.5, (y1 - element[..., 1]) / pitch_y - 0.5
    place = np.where(plane.rows, row, column)
    nearer = 1 / np.where(plane.rows, -along[..., 1] / pitch_y, along[..., 0] / pitch_x)
    slice_pitch, source = grid.spacing[0], geometry.source_heights()
    return ConeRays(
        plane,
        np.hypot(along[..., 0], along[..., 1]) / slice_pitch,
        1 - place * nearer,
        nearer,
        (source - grid.heights()[0]) / slice_pitch,
        (geometry.row_heights()[:, 0] - source) / slice_pitch,
        geometry.det_spacing[0] / slice_pitch,
        geometry.det_shape[0],
    )


def forward(x: NDArray[np.float32], rays: ConeRays) -> NDArray[np.float32]:
    """Integrate volumes x (B, Z, H, W) to (B, V, R, D). Memory beside the two: a copy of the volumes."""
    import numba

    from medrecon.operators.ct.joseph import cone_kernels

    batch, slices, height, width = x.shape
    views, columns = rays.plane.rows.shape
    padded = np.zeros((batch, height + 2, width + 2, slices), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = np.moveaxis(x, 1, -1)
    y = np.empty((batch, views, rays.heights, columns), dtype=np.float32)
    together = BLOCK if forked() else max(1, min(BLOCK, batch * views // (2 * numba.get_num_threads())))
    compiled(cone_kernels, "forward")(padded, y, *_tables(rays, together))
    return y


def adjoint(y: NDArray[np.float32], rays: ConeRays, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Apply the exact transpose of `forward`: (B, V, R, D) -> (B, Z, H, W). Memory beside the two: a copy of each."""
    from medrecon.operators.ct.joseph import cone_kernels

    slices, height, width = shape
    padded = np.zeros((len(y), height + 2, width + 2, slices), dtype=np.float32)
    compiled(cone_kernels, "adjoint")(np.ascontiguousarray(y, dtype=np.float32), padded, *_tables(rays, BLOCK))
    return np.ascontiguousarray(np.moveaxis(padded[:, 1:-1, 1:-1], -1, 1))


def _tables(rays: ConeRays, *more: int) -> tuple[Any, ...]:
    plane = rays.plane
    return (
        plane.rows,
        plane.start,
        plane.slope,
        plane.first,
        plane.last,
        plane.length,
        rays.flat,
        rays.near,
        rays.nearer,
        rays.source,
        rays.climb,
        rays.pitch,
        *more,
    )
