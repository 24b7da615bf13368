"""Joseph's projector for batches of slices on the CPU: rays in index coordinates, and their sparse matrix.

A ray that runs more along the rows axis than along the columns crosses every row once; the image is interpolated
linearly between the two nearest columns there (Joseph 1982, IEEE TMI 1, 192-196), and times the length of the ray
between two rows. The other rays step along the columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import Geometry, ImageGrid
from medrecon.numerics.threads import compiled, forked

CHUNK = 64
"""Slices that share a weight; more would not be faster, and their copies would take memory."""


@dataclass(frozen=True)
class Rays:
    """The rays of a scan in index coordinates; every field (V, D).

    Step i (row or column) from `first` to `last` - 1 crosses at place start + slope * i of the other axis.

    Attributes:
        rows: whether the ray steps along the rows.
        length: mm of the ray between two steps.
    """

    rows: NDArray[np.bool_]
    start: NDArray[np.float64]
    slope: NDArray[np.float64]
    length: NDArray[np.float32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]

    def tables(self) -> tuple[NDArray[Any], ...]:
        """Return what the compiled loops read."""
        return self.rows, self.start, self.slope, self.length, self.first, self.last

    def subset(self, views: Sequence[int]) -> Rays:
        """Return the rays of these views."""
        return Rays(*(table[list(views)] for table in self.tables()))


def trace(geometry: Geometry, grid: ImageGrid) -> Rays:
    """Trace the rays of a geometry on a grid, float64 throughout."""
    onto, along = geometry.rays()
    (height, width), (pitch_y, pitch_x), (x0, _, _, y1) = grid.shape, grid.spacing, grid.window
    column, row = (onto[..., 0] - x0) / pitch_x - 0.5, (y1 - onto[..., 1]) / pitch_y - 0.5
    d_column, d_row = along[..., 0] / pitch_x, -along[..., 1] / pitch_y
    rows = np.abs(d_row) >= np.abs(d_column)
    main, other = np.where(rows, (d_row, d_column), (d_column, d_row))
    slope = other / main
    start = np.where(rows, column - slope * row, row - slope * column)
    length = np.hypot(along[..., 0], along[..., 1]) / np.abs(main)
    first, last = _range(start, slope, np.where(rows, height, width), np.where(rows, width, height))
    return Rays(rows, start, slope, length.astype(np.float32), first, last)


def _range(
    start: NDArray[np.float64], slope: NDArray[np.float64], count: NDArray[np.int64], across: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Steps where -1 <= start + slope * i < across, within 0..count: clamped as floats, for rays along an axis."""
    flat = np.abs(slope) < 1e-9  # moves less than a thousandth of a pixel over any image
    safe = np.where(flat, 1.0, slope)
    ends = np.stack([(-1 - start) / safe, (across - start) / safe])
    inside = (start >= -1) & (start < across)
    low = np.where(flat, 0.0, ends.min(0))
    high = np.where(flat, np.where(inside, count, 0), ends.max(0))
    first = np.clip(np.ceil(low), 0, count)
    last = np.clip(np.floor(high) + 1, first, count)
    return first.astype(np.int32), last.astype(np.int32)


def forward(x: NDArray[np.float32], rays: Rays) -> NDArray[np.float32]:
    """Integrate slices x (B, H, W) along the rays to (B, V, D)."""
    import numba

    from medrecon.operators.ct.joseph import planar_kernels as kernels

    turn_in, run, turn_out = (compiled(kernels, name) for name in ("slices_last", "forward", "slices_first"))
    parts = 1 if forked() else 2 * numba.get_num_threads()
    out = np.empty((len(x), *rays.rows.shape), dtype=np.float32)
    for start in range(0, len(x), CHUNK):
        part = np.ascontiguousarray(x[start : start + CHUNK])
        padded = aligned_zeros((part.shape[1] + 2, part.shape[2] + 2, len(part)))
        y = aligned_zeros((*rays.rows.shape, len(part)))
        turn_in(part, padded, 1)
        run(padded, y, rays.tables(), _block(len(part)), parts)
        turn_out(y, out[start : start + CHUNK], 0)
    return out


def adjoint(y: NDArray[np.float32], rays: Rays, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Apply the exact transpose of `forward`: (B, V, D) -> (B, H, W)."""
    from medrecon.operators.ct.joseph import planar_kernels as kernels

    turn_in, run, turn_out = (compiled(kernels, name) for name in ("slices_last", "adjoint", "slices_first"))
    out = np.empty((len(y), *shape), dtype=np.float32)
    for start in range(0, len(y), CHUNK):
        part = np.ascontiguousarray(y[start : start + CHUNK])
        last = aligned_zeros((*part.shape[1:], len(part)))
        padded = aligned_zeros((shape[0] + 2, shape[1] + 2, len(part)))
        turn_in(part, last, 0)
        run(last, padded, rays.tables(), _block(len(part)))
        turn_out(padded, out[start : start + CHUNK], 1)
    return out


def matrix(rays: Rays, shape: tuple[int, int]) -> Any:
    """Return the same projector as a scipy CSR matrix (V * D, H * W), float32: faster for one small slice."""
    from scipy.sparse import csr_matrix

    across = np.where(rays.rows, shape[1], shape[0])
    ray_of, pixel_of, weight_of = [], [], []
    for i in range(max(shape)):
        ray = np.flatnonzero((rays.first <= i) & (i < rays.last))
        rows, length = rays.rows.ravel()[ray], rays.length.ravel()[ray]
        place = rays.start.ravel()[ray] + rays.slope.ravel()[ray] * i
        left = np.floor(place).astype(np.int64)
        share = (place - left).astype(np.float32)
        for j, weight in ((left, (1 - share) * length), (left + 1, share * length)):
            inside = (j >= 0) & (j < across.ravel()[ray])
            ray_of.append(ray[inside].astype(np.int32))
            pixel_of.append(np.where(rows, i * shape[1] + j, j * shape[1] + i)[inside].astype(np.int32))
            weight_of.append(weight[inside])
    where = (np.concatenate(ray_of), np.concatenate(pixel_of))
    return csr_matrix((np.concatenate(weight_of), where), shape=(rays.rows.size, shape[0] * shape[1]))


def _block(slices: int) -> int:
    """Image rows or columns that stay in cache while the rays of many views pass."""
    return 8 if slices >= 16 else 32


def aligned_zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return zeros that start at a cache line: vector loads and stores that cross lines cost a quarter of the time."""
    count = math.prod(shape)
    raw = np.zeros(count + 16, dtype=np.float32)
    offset = -raw.ctypes.data // 4 % 16
    return raw[offset : offset + count].reshape(shape)
