"""Compiled loops of `cone` and `fdk`: z innermost. The rays of one detector column and view lie over one line of the
plane, so all of them share the neighbours and weights there; at each step the two neighbouring columns of voxels are
mixed into one, and the rows take from it at equal distances. No two threads write one place, and every sum has one
order, so the result does not depend on the number of threads.

Volumes are (B, H + 2, W + 2, Z), zero-padded by a pixel in the plane; sinograms (B, V, R, D).
"""

from __future__ import annotations

import math

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors
# No fused multiply-adds: every build would place them elsewhere, and the serial one give other bits; they save nothing.

WHOLE = 2.0**32
"""Places along z count in fixed point, 32 bits before and 32 behind the point: faster than floats, and 1e-7 exact."""


@numba.njit(cache=True, inline="always")
def _inside(first, step, count, size):
    """The indices n in 0..count where -1 < first + n * step < size; step > 0."""
    low = math.floor((-1 - first) / step) + 1
    high = math.ceil((size - first) / step)
    low = min(max(low, 0.0), float(count))
    return int(low), int(max(min(high, float(count)), low))


@numba.njit(cache=True)
def _take(line, out, first, step):
    """out[n] += line at first + n * step, linearly interpolated; 0 <= place < len(line) - 1."""
    place, move = np.uint64(max(first, 0.0) * WHOLE), np.uint64(step * WHOLE)
    for n in range(np.uint64(len(out))):
        k = place >> np.uint64(32)
        share = np.float32(np.int32(np.uint32(place) >> np.uint32(1))) * np.float32(2.0**-31)
        out[n] += (np.float32(1) - share) * line[k] + share * line[k + np.uint64(1)]
        place += move


@numba.njit(cache=True)
def _give(line, values, first, step):
    """The transpose of `_take`."""
    place, move = np.uint64(max(first, 0.0) * WHOLE), np.uint64(step * WHOLE)
    for n in range(np.uint64(len(values))):
        k = place >> np.uint64(32)
        share = np.float32(np.int32(np.uint32(place) >> np.uint32(1))) * np.float32(2.0**-31)
        line[k] += (np.float32(1) - share) * values[n]
        line[k + np.uint64(1)] += share * values[n]
        place += move


@numba.njit(cache=True, inline="always")
def _cross(start, slope, i):
    """Index of the left neighbour in the padded plane, and the weights of it and of its right neighbour."""
    place = start + slope * i
    left = math.floor(place)
    share = np.float32(place - left)
    return int(left) + 1, np.float32(1) - share, share


@numba.njit(cache=True, inline="always")
def _rows(share, source, climb, pitch, heights, slices):
    """Where the ray's plane is `share` of the way from the source to the detector: the rows low..high that are inside
    the volume, the place of row `low` and the step to the next one in slices from slice -1, and the slices
    bottom..top that they touch."""
    z, step = source + share * climb, share * pitch
    low, high = _inside(z, step, heights, slices)
    place = z + low * step + 1
    bottom = max(int(place) - 1, 0)
    top = min(int(place + (high - low - 1) * step) + 1, slices)
    return low, high, place, step, bottom, top


@numba.njit(cache=True, inline="always")
def _length(climb, pitch, r, flat, length):
    """mm of the ray to row r between two steps."""
    rise = (climb + r * pitch) / flat
    return np.float32(length * math.sqrt(1 + rise * rise))


@numba.njit(cache=True, parallel=True)
def forward(x, y, rows, start, slope, first, last, length, flat, near, nearer, source, climb, pitch, together):
    """Compute y = A x. A thread owns portions of `together` views, which take each plane of voxels while in cache."""
    batch, views, heights, columns = y.shape
    slices = x.shape[3]
    parts = (views + together - 1) // together
    for task in numba.prange(batch * parts):
        begin = task % parts * together
        end = min(views, begin + together)
        item = x[task // parts]
        sums = np.zeros((end - begin, columns, heights), dtype=np.float32)
        line = np.zeros(slices + 3, dtype=np.float32)  # slice -1, all slices, the one behind, and one for rounding
        for along_rows in (True, False):
            count = item.shape[0] - 2 if along_rows else item.shape[1] - 2
            across = item.shape[1] if along_rows else item.shape[0]
            for i in range(count):
                for v in range(begin, end):
                    for d in range(columns):
                        if rows[v, d] != along_rows or i < first[v, d] or i >= last[v, d]:
                            continue
                        j, w0, w1 = _cross(start[v, d], slope[v, d], i)
                        low, high, place, step, bottom, top = _rows(
                            near[v, d] + nearer[v, d] * i, source[v], climb[v], pitch, heights, slices
                        )
                        if j < 0 or j >= across - 1 or low == high:
                            continue
                        a = (item[i + 1, j] if along_rows else item[j, i + 1])[bottom:top]
                        b = (item[i + 1, j + 1] if along_rows else item[j + 1, i + 1])[bottom:top]
                        mixed = line[bottom + 1 : top + 1]
                        for k in range(len(mixed)):
                            mixed[k] = w0 * a[k] + w1 * b[k]
                        line[top + 1] = 0
                        _take(line, sums[v - begin, d, low:high], place, step)
        for v in range(begin, end):
            for r in range(heights):
                for d in range(columns):
                    mm = _length(climb[v], pitch, r, flat[v, d], length[v, d])
                    y[task // parts, v, r, d] = sums[v - begin, d, r] * mm


@numba.njit(cache=True, parallel=True)
def adjoint(y, x, rows, start, slope, first, last, length, flat, near, nearer, source, climb, pitch, block):
    """Add A^T y to x. First a thread owns a block of rows and takes the rays that step along them, then of columns."""
    batch, views, heights, columns = y.shape
    slices = x.shape[3]
    given = np.empty((batch, views, columns, heights), dtype=np.float32)
    for task in numba.prange(batch * views):
        v = task % views
        for d in range(columns):
            for r in range(heights):
                mm = _length(climb[v], pitch, r, flat[v, d], length[v, d])
                given[task // views, v, d, r] = y[task // views, v, r, d] * mm
    for along_rows in (True, False):
        count = x.shape[1] - 2 if along_rows else x.shape[2] - 2
        across = x.shape[2] if along_rows else x.shape[1]
        parts = (count + block - 1) // block
        for task in numba.prange(batch * parts):
            begin = task % parts * block
            item = x[task // parts]
            line = np.zeros(slices + 3, dtype=np.float32)
            for v in range(views):
                for i in range(begin, min(count, begin + block)):
                    for d in range(columns):
                        if rows[v, d] != along_rows or i < first[v, d] or i >= last[v, d]:
                            continue
                        j, w0, w1 = _cross(start[v, d], slope[v, d], i)
                        low, high, place, step, bottom, top = _rows(
                            near[v, d] + nearer[v, d] * i, source[v], climb[v], pitch, heights, slices
                        )
                        if j < 0 or j >= across - 1 or low == high:
                            continue
                        line[bottom : top + 2] = 0
                        _give(line, given[task // parts, v, d, low:high], place, step)
                        a = (item[i + 1, j] if along_rows else item[j, i + 1])[bottom:top]
                        b = (item[i + 1, j + 1] if along_rows else item[j + 1, i + 1])[bottom:top]
                        mixed = line[bottom + 1 : top + 1]
                        for k in range(len(mixed)):
                            a[k] += w0 * mixed[k]
                            b[k] += w1 * mixed[k]


# In a process forked from one whose OpenMP threads already ran, new threads would be its end. Not cached: numba's
# cache tells functions apart by name, and would load the parallel ones.
forward_serial = numba.njit(forward.py_func)
adjoint_serial = numba.njit(adjoint.py_func)
