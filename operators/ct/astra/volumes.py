"""ASTRA's GPU projectors in three dimensions: cone beams, and parallel beams as batches of slices. Tensors on the GPU
are handed over by DLPack, without a copy on the host. Imported where used: GPL."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.geometry import ConeGeometry, ImageGrid, ParallelGeometry, VolumeGrid
from medrecon.numerics.threads import check_not_recorded
from medrecon.operators.ct.astra.slices import check_written, require_gpu
from medrecon.operators.ct.projector import check_precision


class Astra3D:
    """A projector in the sense of `projector.Projector`, float32, on tensors of either device.

    Its adjoint is ASTRA's voxel-driven backprojection, which is off by some per cent.

    Raises:
        RuntimeError: no GPU.
    """

    def __init__(self, geometry: ParallelGeometry | ConeGeometry, grid: ImageGrid | VolumeGrid) -> None:
        require_gpu()
        self.geometry, self.grid = geometry, grid

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.geometry, ConeGeometry):
            return torch.stack([self._volume(item, "direct_FP") for item in x])
        return self._volume(x, "direct_FP").movedim(1, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        if isinstance(self.geometry, ConeGeometry):
            return torch.stack([self._volume(item, "direct_BP") for item in y])
        return self._volume(y.movedim(0, 1), "direct_BP")

    def subset(self, views: Sequence[int]) -> Astra3D:
        return Astra3D(self.geometry.subset(views), self.grid)

    def _volume(self, item: Tensor, call: str) -> Tensor:
        """(Z, H, W) -> (V, R, D) or back; the rows of ASTRA's volumes run along +y, its sinograms are (R, V, D)."""
        import astra

        check_precision(item, "ASTRA", "backend='torch'")
        check_not_recorded()
        ahead = call == "direct_FP"
        slices = item.shape[0] if ahead else item.shape[1]
        given = (item.flip(1) if ahead else item.movedim(1, 0)).detach().float().contiguous()
        volume, rays = astra_volume(self.grid, slices), astra_rays(self.geometry, slices)
        views, columns = self.geometry.shape[0], self.geometry.shape[-1]
        rows = self.geometry.det_shape[0] if isinstance(self.geometry, ConeGeometry) else slices
        height, width = self.grid.shape[-2:]
        out = given.new_full((rows, views, columns) if ahead else (slices, height, width), math.nan)
        if item.is_cuda:
            torch.cuda.synchronize(item.device)  # ASTRA works on a stream of its own
        projector = astra.create_projector("cuda3d", rays, volume, options={"GPUindex": item.device.index or 0})
        try:
            getattr(astra.projector3d, call)(projector, given, out=out)
        finally:
            astra.projector3d.delete(projector)
        check_written(given, out)
        return (out.movedim(0, 1) if ahead else out.flip(1)).to(item)


def astra_volume(grid: ImageGrid | VolumeGrid, slices: int) -> dict[str, object]:
    """Return ASTRA's volume geometry; slices of a batch lie 1 mm apart around z = 0."""
    import astra

    plane, z, pitch = (grid.plane(), grid.center[2], grid.spacing[0]) if isinstance(grid, VolumeGrid) else (grid, 0, 1)
    half = slices * pitch / 2
    return dict(astra.create_vol_geom(*plane.shape, slices, *plane.window, z - half, z + half))


def astra_rays(geometry: ParallelGeometry | ConeGeometry, slices: int) -> dict[str, object]:
    """Return ASTRA's projection geometry: parallel3d_vec with a detector row a slice, cone_vec, or cyl_cone_vec."""
    import astra

    if isinstance(geometry, ParallelGeometry):
        return dict(astra.create_proj_geom("parallel3d_vec", slices, geometry.det_count, parallel_vectors(geometry)))
    kind = "cone_vec" if geometry.detector == "flat" else "cyl_cone_vec"
    return dict(astra.create_proj_geom(kind, *geometry.det_shape, cone_vectors(geometry)))


def parallel_vectors(geometry: ParallelGeometry) -> NDArray[np.float64]:
    """Return vectors (V, 12): ray direction, detector centre, steps along a row and between rows."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    zero, one = np.zeros_like(c), np.ones_like(c)
    axis = np.stack([c, s, zero], axis=1)
    return np.concatenate(
        [
            np.stack([s, -c, zero], axis=1),
            geometry.det_offset * axis,
            geometry.det_spacing * axis,
            np.stack([zero, zero, one], axis=1),
        ],
        axis=1,
    )


def cone_vectors(geometry: ConeGeometry) -> NDArray[np.float64]:
    """Return vectors (V, 12): source, detector centre, steps along and between rows; of an arc its radius, too.

    An arc's centre and step are those of its middle, on the arc.
    """
    fan = geometry.plane()
    turn = fan.det_offset / fan.source_detector if geometry.detector == "arc" else 0.0
    c, s = np.cos(fan.angles), np.sin(fan.angles)
    along, ahead = np.stack([c, s], axis=1), np.stack([-s, c], axis=1)
    axis, outward = along * math.cos(turn) - ahead * math.sin(turn), ahead * math.cos(turn) + along * math.sin(turn)
    shift = 0.0 if geometry.detector == "arc" else fan.det_offset
    centre = fan.source_detector * outward - fan.source_origin * ahead + shift * axis
    middle = geometry.row_heights().mean(axis=1, keepdims=True)
    zero = np.zeros_like(middle)
    parts = [
        fan.sources(),
        geometry.source_heights()[:, None],
        centre,
        middle,
        fan.det_spacing * axis,
        zero,
        zero,
        zero,
        zero + geometry.det_spacing[0],
    ]
    return np.concatenate([*parts, zero + fan.source_detector] if geometry.detector == "arc" else parts, axis=1)
