"""Compiled loops of `interpolation`: channels innermost, separable weights, one pass over samples sorted into tiles.

Samples are y (channels, S); the grid is real, (G_0 + width, (G_1 + width) * lanes), real and imaginary parts of the
channels being the lanes, and repeats its start behind its end, so that no index wraps inside a loop. No two threads
write one place and every sum has one order: the result does not depend on the number of threads.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors

BAND = 16
"""Grid rows whose samples are sorted together; a sample's kernel reaches into the next band, no further."""
CHANNELS = 8
"""Channels transformed at once: their samples fill a cache line, their grid stays near the cache."""
LANES = 2 * CHANNELS


def _loops(width, full, jit):
    """`interpolate` and `spread` for a kernel width known to the compiler, and of `full` ones the lanes too: it unrolls
    and vectorises them."""

    def interpolate(grid, y, order, start, weights, bands):
        """Compute y[:, order[q]] = sum over the width^2 grid points from start[q] of weights times grid."""
        lanes = LANES if full else 2 * y.shape[0]
        for band in numba.prange(bands.size - 1):
            total, zero = np.empty(lanes, grid.dtype), np.zeros(1, grid.dtype)[0]
            for q in range(bands[band], bands[band + 1]):
                row, column = start[q, 0], start[q, 1] * lanes
                w = weights[q, 1]
                for k in range(lanes):
                    total[k] = 0
                for i in range(width):
                    line = grid[row + i, column : column + width * lanes]
                    u = weights[q, 0, i]
                    for k in range(lanes):
                        a = zero
                        for j in range(width):
                            a += w[j] * line[j * lanes + k]
                        total[k] += u * a
                s = order[q]
                for k in range(y.shape[0]):
                    y[k, s] = complex(total[2 * k], total[2 * k + 1])

    def spread(grid, y, order, start, weights, bands):
        """Add the transpose of `interpolate` of y to grid: first even bands, whose rows do not meet, then odd."""
        lanes = LANES if full else 2 * y.shape[0]
        for parity in range(2):
            for pair in numba.prange(bands.size // 2):
                band = 2 * pair + parity
                if band >= bands.size - 1:
                    continue
                value, line = np.empty(lanes, grid.dtype), np.empty(width * lanes, grid.dtype)
                for q in range(bands[band], bands[band + 1]):
                    s = order[q]
                    for k in range(y.shape[0]):
                        value[2 * k], value[2 * k + 1] = y[k, s].real, y[k, s].imag
                    for j in range(width):
                        w = weights[q, 1, j]
                        for k in range(lanes):
                            line[j * lanes + k] = w * value[k]
                    row, column = start[q, 0], start[q, 1] * lanes
                    for i in range(width):
                        u = weights[q, 0, i]
                        out = grid[row + i, column : column + width * lanes]
                        for m in range(width * lanes):
                            out[m] += u * line[m]

    return jit(interpolate), jit(spread)


@functools.cache
def loops(width, full):
    """Build (interpolate, spread) on all threads."""
    return _loops(width, full, numba.njit(cache=True, parallel=True, fastmath={"contract"}))


@functools.cache
def loops_serial(width, full):
    """Build (interpolate, spread) on one thread. Not cached on disk: numba's cache would load the parallel ones."""
    return _loops(width, full, numba.njit(fastmath={"contract"}))


@numba.njit(cache=True, parallel=True)
def lanes_last(x, out):
    """Copy (channels, G_0, G_1) complex into the grid of the loops, its start repeated behind its end."""
    count, height, width = x.shape
    wide = out.shape[1] // (2 * count)
    for r in numba.prange(out.shape[0]):
        row = r % height
        for c0 in range(0, wide, 16):
            for k in range(count):
                for c in range(c0, min(c0 + 16, wide)):
                    value = x[k, row, c % width]
                    out[r, 2 * (c * count + k)] = value.real
                    out[r, 2 * (c * count + k) + 1] = value.imag


@numba.njit(cache=True, parallel=True)
def lanes_first(grid, out):
    """Transpose `lanes_last`: (channels, G_0, G_1) complex, what lies behind the end added to the start."""
    count, height, width = out.shape
    wide = grid.shape[1] // (2 * count)
    for row in numba.prange(height):
        for r in range(row, grid.shape[0], height):
            for c0 in range(0, wide, 16):
                for k in range(count):
                    for c in range(c0, min(c0 + 16, wide)):
                        value = complex(grid[r, 2 * (c * count + k)], grid[r, 2 * (c * count + k) + 1])
                        if r == row and c < width:
                            out[k, row, c] = value
                        else:
                            out[k, row, c % width] += value


lanes_last_serial = numba.njit(lanes_last.py_func)
lanes_first_serial = numba.njit(lanes_first.py_func)
