"""Compiled loops of `joseph`: slices innermost, one weight a ray and step for all of them. No two threads write one
place, and every sum has one order, so the result does not depend on the number of threads.

Images are (H + 2, W + 2, B), zero-padded by a pixel; sinograms (V, D, B).
"""  # fmt: skip

from __future__ import annotations

import math

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors


@numba.njit(cache=True, inline="always")
def _cross(start, slope, length, i):
    """Index of the left neighbour in the padded image, and the weights of it and of its right neighbour."""
    place = start + slope * i
    left = math.floor(place)
    share = np.float32(place - left)
    return int(left) + 1, (np.float32(1) - share) * length, share * length


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def forward(x, y, rows, start, slope, length, first, last, block, parts):
    """y += A x. A thread owns some views, in about `parts` portions; a block of the image stays in cache while
    all their rays pass."""
    views, detectors, batch = y.shape
    share = max(1, views // parts)
    for part in numba.prange((views + share - 1) // share):
        for along_rows in (True, False):
            count = x.shape[0] - 2 if along_rows else x.shape[1] - 2
            across = x.shape[1] if along_rows else x.shape[0]
            for low in range(0, count, block):
                for v in range(part * share, min(views, (part + 1) * share)):
                    for d in range(detectors):
                        if rows[v, d] != along_rows:
                            continue
                        out = y[v, d]
                        for i in range(max(first[v, d], low), min(last[v, d], low + block)):
                            j, w0, w1 = _cross(start[v, d], slope[v, d], length[v, d], i)
                            if j < 0 or j >= across - 1:
                                continue
                            a = x[i + 1, j] if along_rows else x[j, i + 1]
                            b = x[i + 1, j + 1] if along_rows else x[j + 1, i + 1]
                            for k in range(batch):
                                out[k] += w0 * a[k] + w1 * b[k]


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def adjoint(y, x, rows, start, slope, length, first, last, block):
    """x += A^T y. First a thread owns a block of rows and takes the rays that step along them, then of columns."""
    views, detectors, batch = y.shape
    for along_rows in (True, False):
        count = x.shape[0] - 2 if along_rows else x.shape[1] - 2
        across = x.shape[1] if along_rows else x.shape[0]
        for part in numba.prange((count + block - 1) // block):
            low = part * block
            for v in range(views):
                for d in range(detectors):
                    if rows[v, d] != along_rows:
                        continue
                    ray = y[v, d]
                    for i in range(max(first[v, d], low), min(last[v, d], low + block)):
                        j, w0, w1 = _cross(start[v, d], slope[v, d], length[v, d], i)
                        if j < 0 or j >= across - 1:
                            continue
                        a = x[i + 1, j] if along_rows else x[j, i + 1]
                        b = x[i + 1, j + 1] if along_rows else x[j + 1, i + 1]
                        for k in range(batch):
                            a[k] += w0 * ray[k]
                            b[k] += w1 * ray[k]


# In a process forked from one whose OpenMP threads already ran, new threads would be its end. Not cached: numba's
# cache tells functions apart by name, and would load the parallel ones.
forward_serial = numba.njit(fastmath={"contract"})(forward.py_func)
adjoint_serial = numba.njit(fastmath={"contract"})(adjoint.py_func)
