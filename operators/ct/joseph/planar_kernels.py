"""Compiled loops of `joseph`: slices innermost, one weight a ray and step for all of them. No two threads write one
place, and every sum has one order, so the result does not depend on the number of threads.

Images are (H + 2, W + 2, B), zero-padded by a pixel; sinograms (V, D, B). Weights are made for a tile of rays and a
block of steps at once, which the compiler turns into vector instructions.
"""

from __future__ import annotations

import math

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors

TILE = 64
"""Rays whose weights are made at once."""
LINE = 16
"""Floats of a cache line."""


@numba.njit(cache=True, fastmath={"contract"})
def _weights(start, slope, length, low, steps, left, w0, w1):
    """Of a tile of rays, all (steps, tile): index of the left neighbour in the padded image, weights of it and of its
    right one."""
    for i in range(steps):
        for d in range(start.size):
            place = start[d] + slope[d] * (low + i)
            floor = math.floor(place)
            share = np.float32(place - floor)
            left[i, d] = np.int32(floor) + 1
            w0[i, d] = (np.float32(1) - share) * length[d]
            w1[i, d] = share * length[d]


@numba.njit(cache=True)
def _used(rows, first, last, along_rows, low, high):
    """Whether any of a tile of rays steps along this axis between low and high."""
    for d in range(rows.size):  # noqa: SIM110 - numba knows no generators
        if rows[d] == along_rows and first[d] < high and last[d] > low:
            return True
    return False


@numba.njit(cache=True, inline="always")
def _axis(x, along_rows):
    """Steps, padded pixels across, and the strides of both in elements."""
    height, width, batch = x.shape
    return (height - 2, width, width * batch, batch) if along_rows else (width - 2, height, batch, width * batch)


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def forward(x, y, rays, block, parts):
    """Add A x to y. A thread owns some views, in about `parts` portions; a block of the image stays in cache while
    all their rays pass."""
    views, detectors, batch = y.shape
    rows, start, slope, length, first, last = rays
    flat = x.reshape(-1)
    share = max(1, views // parts)
    for part in numba.prange((views + share - 1) // share):
        left = np.empty((block, TILE), np.int32)
        w0, w1 = np.empty((block, TILE), np.float32), np.empty((block, TILE), np.float32)
        for along_rows in (True, False):
            count, across, step, neighbour = _axis(x, along_rows)
            for low in range(0, count, block):
                for v in range(part * share, min(views, (part + 1) * share)):
                    for d0 in range(0, detectors, TILE):
                        d1 = min(d0 + TILE, detectors)
                        if not _used(rows[v, d0:d1], first[v, d0:d1], last[v, d0:d1], along_rows, low, low + block):
                            continue
                        _weights(start[v, d0:d1], slope[v, d0:d1], length[v, d0:d1], low, block, left, w0, w1)
                        for d in range(d0, d1):
                            if rows[v, d] != along_rows:
                                continue
                            out = y[v, d]
                            low_i, high_i = max(first[v, d] - low, 0), min(last[v, d] - low, block)
                            if batch == 1:
                                total = out[0]
                                for i in range(low_i, high_i):
                                    j = left[i, d - d0]
                                    if 0 <= j < across - 1:
                                        p = (low + i + 1) * step + j * neighbour
                                        total += w0[i, d - d0] * flat[p] + w1[i, d - d0] * flat[p + neighbour]
                                out[0] = total
                                continue
                            for i in range(low_i, high_i):
                                j, u, w = left[i, d - d0], w0[i, d - d0], w1[i, d - d0]
                                if j < 0 or j >= across - 1:
                                    continue
                                p = (low + i + 1) * step + j * neighbour
                                a, b = flat[p : p + batch], flat[p + neighbour : p + neighbour + batch]
                                for k in range(batch):
                                    out[k] += u * a[k] + w * b[k]


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def adjoint(y, x, rays, block):
    """Add A^T y to x. First a thread owns a block of rows and takes the rays that step along them, then of columns."""
    views, detectors, batch = y.shape
    rows, start, slope, length, first, last = rays
    flat = x.reshape(-1)
    for along_rows in (True, False):
        count, across, step, neighbour = _axis(x, along_rows)
        for part in numba.prange((count + block - 1) // block):
            low = part * block
            left = np.empty((block, TILE), np.int32)
            w0, w1 = np.empty((block, TILE), np.float32), np.empty((block, TILE), np.float32)
            for v in range(views):
                for d0 in range(0, detectors, TILE):
                    d1 = min(d0 + TILE, detectors)
                    if not _used(rows[v, d0:d1], first[v, d0:d1], last[v, d0:d1], along_rows, low, low + block):
                        continue
                    _weights(start[v, d0:d1], slope[v, d0:d1], length[v, d0:d1], low, block, left, w0, w1)
                    for d in range(d0, d1):
                        if rows[v, d] != along_rows:
                            continue
                        ray = y[v, d]
                        low_i, high_i = max(first[v, d] - low, 0), min(last[v, d] - low, block)
                        if batch == 1:
                            for i in range(low_i, high_i):
                                j = left[i, d - d0]
                                if 0 <= j < across - 1:
                                    p = (low + i + 1) * step + j * neighbour
                                    flat[p] += w0[i, d - d0] * ray[0]
                                    flat[p + neighbour] += w1[i, d - d0] * ray[0]
                            continue
                        for i in range(low_i, high_i):
                            j, u, w = left[i, d - d0], w0[i, d - d0], w1[i, d - d0]
                            if j < 0 or j >= across - 1:
                                continue
                            p = (low + i + 1) * step + j * neighbour
                            a, b = flat[p : p + batch], flat[p + neighbour : p + neighbour + batch]
                            for k in range(batch):
                                a[k] += u * ray[k]
                                b[k] += w * ray[k]


@numba.njit(cache=True, parallel=True)
def slices_last(x, out, margin):
    """Copy (B, H, W) into (H + 2 margin, W + 2 margin, B)."""
    batch, height, width = x.shape
    for h in numba.prange(height):
        for w0 in range(0, width, LINE):
            for k in range(batch):
                for w in range(w0, min(w0 + LINE, width)):
                    out[h + margin, w + margin, k] = x[k, h, w]


@numba.njit(cache=True, parallel=True)
def slices_first(x, out, margin):
    """Copy (H + 2 margin, W + 2 margin, B) into (B, H, W)."""
    batch, height, width = out.shape
    for h in numba.prange(height):
        for w0 in range(0, width, LINE):
            for k in range(batch):
                for w in range(w0, min(w0 + LINE, width)):
                    out[k, h, w] = x[h + margin, w + margin, k]


# In a process forked from one whose OpenMP threads already ran, new threads would be its end. Not cached: numba's
# cache tells functions apart by name, and would load the parallel ones.
forward_serial = numba.njit(fastmath={"contract"})(forward.py_func)
adjoint_serial = numba.njit(fastmath={"contract"})(adjoint.py_func)
slices_last_serial = numba.njit(slices_last.py_func)
slices_first_serial = numba.njit(slices_first.py_func)
