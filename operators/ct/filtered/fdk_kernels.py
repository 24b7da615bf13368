"""Compiled loop of `fdk`: pixel-driven backprojection, z innermost. All voxels over one pixel project on one line
along the detector's rows. A thread owns image rows, and every sum has one order: the bits do not depend on the
number of threads."""

from __future__ import annotations

import math

import numba
import numpy as np

from medrecon.operators.ct.joseph.cone_kernels import _inside, _take

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors


@numba.njit(cache=True, inline="always")
def _project(x, y, c, s, arc, radius):
    """Place along the detector at the rotation axis, and distance from the source that magnifies, of a pixel."""
    across, depth = x * c + y * s, radius - x * s + y * c
    if arc:
        return math.atan2(across, depth) * radius, math.hypot(across, depth)
    return across * radius / depth, depth


@numba.njit(cache=True, parallel=True)
def backproject(p, volume, cosine, sine, x, y, arc, radius, left, spacing, rise, z0, dz, row0, block):
    """Sum the filtered projections p (V, D + 2, R), zeros in the first and last column, into volume.

    `rise`: detector rows that a slope of 1 climbs from source to detector; z0, dz: height of slice 0 over the source,
    and pitch; row0: height of row 0 over the source, in rows.
    """
    views, columns, rows = p.shape
    slices, height, width = volume.shape
    for part in numba.prange((height + block - 1) // block):
        begin, end = part * block, min(height, (part + 1) * block)
        sums = np.zeros((end - begin, width, slices), dtype=p.dtype)
        bottom = np.full((end - begin, width), slices)  # the slices bottom..top are seen in some view
        top = np.zeros((end - begin, width), dtype=np.int64)
        line = np.zeros(rows + 3, dtype=p.dtype)  # row -1, all rows, the one behind, and one for rounding
        for v in range(views):
            for h in range(begin, end):
                for w in range(width):
                    place, distance = _project(x[w], y[h], cosine[v], sine[v], arc, radius)
                    row, step = z0 * rise / distance - row0, dz * rise / distance
                    bottom[h - begin, w] = min(bottom[h - begin, w], math.ceil((-0.5 - row) / step))
                    top[h - begin, w] = max(top[h - begin, w], math.floor((rows - 0.5 - row) / step) + 1)
                    column = (place - left) / spacing + 1
                    if not 0 <= column < columns - 1:
                        continue
                    j = int(column)
                    share, weight = p.dtype.type(column - j), p.dtype.type((radius / distance) ** 2)
                    w0, w1 = weight * (p.dtype.type(1) - share), weight * share
                    a, b, out = p[v, j], p[v, j + 1], sums[h - begin, w]
                    low, high = _inside(row, step, slices, rows)
                    below, above = w0 * a[0] + w1 * b[0], w0 * a[-1] + w1 * b[-1]
                    for k in range(low):
                        out[k] += below
                    for k in range(high, slices):
                        out[k] += above
                    if low == high:
                        continue
                    start = row + low * step + 1
                    lowest, highest = max(int(start) - 1, 0), min(int(start + (high - low - 1) * step) + 1, rows)
                    a, b, mixed = a[lowest:highest], b[lowest:highest], line[lowest + 1 : highest + 1]
                    for r in range(len(mixed)):
                        mixed[r] = w0 * a[r] + w1 * b[r]
                    line[0], line[rows + 1] = below, above
                    _take(line, out[low:high], start, step)
        for k in range(slices):
            for h in range(begin, end):
                for w in range(width):
                    seen = bottom[h - begin, w] <= k < top[h - begin, w]
                    volume[k, h, w] = sums[h - begin, w, k] if seen else 0


# For forked processes, and not cached: see `cone_kernels`.
backproject_serial = numba.njit(backproject.py_func)
