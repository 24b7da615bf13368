"""Compiled loops of `winograd`: tiles into its domain and out of it, channels innermost. A thread owns tiles, which
share nothing, so the result does not depend on the number of threads.

Images are (B, H, W, C); a tile is 4 x 4 outputs, which see 6 x 6 inputs. Tiles are counted along a row, then down, then
by image. Their domain is (36, tiles, C).
"""

from __future__ import annotations

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors


@numba.njit(cache=True)
def _ahead(a, b, c, d, e, f):
    """B^T of six inputs."""
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    even, odd, pair, cross = e - four * c, d - four * b, e - c, two * (d - b)
    return four * a - five * c + e, even + odd, even - odd, pair + cross, pair - cross, four * b - five * d + f


@numba.njit(cache=True)
def _back(a, b, c, d, e, f):
    """A^T of six places of the domain."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    inner, inner_odd, outer, outer_odd = b + c, b - c, d + e, d - e
    return a + inner + outer, inner_odd + two * outer_odd, inner + four * outer, inner_odd + eight * outer_odd + f


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def spread(x, domain, first):
    """domain[:, t] = B^T x B of tile first + t; x has a frame of zeros, which fills up the last tiles."""
    down, across, channels = x.shape[1] // 4, x.shape[2] // 4, x.shape[3]
    for t in numba.prange(domain.shape[1]):
        item, place = divmod(first + t, down * across)
        top, left = 4 * (place // across), 4 * (place % across)
        tile = x[item, top : top + 6, left : left + 6]
        half = np.empty((6, 6, channels), np.float32)
        for j in range(6):
            for k in range(channels):
                (half[0, j, k], half[1, j, k], half[2, j, k], half[3, j, k], half[4, j, k], half[5, j, k]) = _ahead(
                    tile[0, j, k], tile[1, j, k], tile[2, j, k], tile[3, j, k], tile[4, j, k], tile[5, j, k]
                )
        for i in range(6):
            row, n = half[i], 6 * i
            for k in range(channels):
                (
                    domain[n, t, k],
                    domain[n + 1, t, k],
                    domain[n + 2, t, k],
                    domain[n + 3, t, k],
                    domain[n + 4, t, k],
                    domain[n + 5, t, k],
                ) = _ahead(row[0, k], row[1, k], row[2, k], row[3, k], row[4, k], row[5, k])


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def gather(domain, y, first):
    """y = A^T domain[:, t] A in tile first + t, as far as it lies in the image."""
    _, height, width, channels = y.shape
    down, across = (height + 3) // 4, (width + 3) // 4
    for t in numba.prange(domain.shape[1]):
        item, place = divmod(first + t, down * across)
        top, left = 4 * (place // across), 4 * (place % across)
        half = np.empty((4, 6, channels), np.float32)
        out = np.empty((4, channels), np.float32)
        for j in range(6):
            for k in range(channels):
                half[0, j, k], half[1, j, k], half[2, j, k], half[3, j, k] = _back(
                    domain[j, t, k],
                    domain[6 + j, t, k],
                    domain[12 + j, t, k],
                    domain[18 + j, t, k],
                    domain[24 + j, t, k],
                    domain[30 + j, t, k],
                )
        for i in range(min(4, height - top)):
            row = half[i]
            for k in range(channels):
                out[0, k], out[1, k], out[2, k], out[3, k] = _back(
                    row[0, k], row[1, k], row[2, k], row[3, k], row[4, k], row[5, k]
                )
            for j in range(min(4, width - left)):
                for k in range(channels):
                    y[item, top + i, left + j, k] = out[j, k]


# In a process forked from one whose OpenMP threads already ran, new threads would be its end. Not cached: numba's
# cache tells functions apart by name, and would load the parallel ones.
spread_serial = numba.njit(fastmath={"contract"})(spread.py_func)
gather_serial = numba.njit(fastmath={"contract"})(gather.py_func)
