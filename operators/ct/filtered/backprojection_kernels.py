"""Compiled loops of `backprojection`: slices innermost, one weight a pixel and view for all of them. A thread owns
image rows and adds the views in order, so the result does not depend on the number of threads.

Images are (H, W, B); views (V, D + 2, B), padded by a zero element at both ends.
"""

from __future__ import annotations

import math

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors

BLOCK = 8
"""Image rows that a view serves while it is in cache."""


@numba.njit(cache=True, inline="always", error_model="numpy", fastmath={"contract"})
def _arctan(t):
    """To 1e-10 rad, in arithmetic that compilers vectorise: two half-angle steps, atan t = 2 atan(t / (1 +
    sqrt(1 + t^2))), bring |t| below tan(pi / 8), where the series converges fast."""
    t /= 1 + math.sqrt(1 + t * t)
    t /= 1 + math.sqrt(1 + t * t)
    q = t * t
    series = 1 / 21
    for n in (19, 17, 15, 13, 11, 9, 7, 5, 3, 1):
        series = 1 / n - q * series
    return 4 * t * series


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _project(place, weight, x, y, c, s, source, first, scale, kind, end):
    """Where the pixels (x, y) of a row fall, in elements of the padded view, and their weight."""
    for j in range(len(x)):
        across, ahead = x[j] * c + y * s, source - x[j] * s + y * c
        if kind == 1:
            weight[j] = (source / ahead) ** 2
            across *= source / ahead
        elif kind == 2:
            weight[j] = source**2 / (across * across + ahead * ahead)
            across = source * _arctan(across / ahead)
        place[j] = min(max((across - first) * scale + 1, 0.0), end)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _add_slice(out, view, place, weight):
    """One slice: the loop over pixels is the inner one."""
    last = len(view) - 2
    for j in range(len(out)):
        low = np.uint64(min(np.int32(place[j]), last))  # unsigned: no wrapping of negative indices
        a, share = view[low], np.float32(place[j] - low)
        out[j] += weight[j] * (a + share * (view[low + np.uint64(1)] - a))


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _add_slices(out, view, place, weight):
    """Many slices: one weight and share serve the inner loop over them. Written as `_add_slice`, for the same bits:
    each product is fused with the one sum that it has."""
    last = len(view) - 2
    for j in range(len(out)):
        low = np.uint64(min(np.int32(place[j]), last))
        w, share = weight[j], np.float32(place[j] - low)
        pixel, a, b = out[j], view[low], view[low + np.uint64(1)]
        for k in range(len(pixel)):
            pixel[k] += w * (a[k] + share * (b[k] - a[k]))


@numba.njit(cache=True, parallel=True)
def backproject(views, image, cosine, sine, x, y, source, first, spacing, kind):
    """Add each view to image, interpolated where the pixels project. kind: 0 parallel, 1 flat, 2 arc."""
    height, width, batch = image.shape
    single, alone = image.reshape(height, width * batch), views.reshape(len(views), views.shape[1] * batch)
    for portion in numba.prange((height + BLOCK - 1) // BLOCK):
        place, weight = np.empty(width), np.ones(width, dtype=np.float32)
        for v in range(len(views)):
            for i in range(portion * BLOCK, min(height, (portion + 1) * BLOCK)):
                _project(
                    place, weight, x, y[i], cosine[v], sine[v], source, first, 1 / spacing, kind, views.shape[1] - 1.0
                )
                if batch == 1:
                    _add_slice(single[i], alone[v], place, weight)
                else:
                    _add_slices(image[i], views[v], place, weight)


# For forked processes, see joseph_kernels.
backproject_serial = numba.njit(backproject.py_func)
