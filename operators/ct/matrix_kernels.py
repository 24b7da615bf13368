"""Compiled products of a sparse matrix (CSR) with one vector or eight side by side. A thread owns some rows, and every
sum has one order, whatever the threads and the columns beside it.

Indices are made unsigned: signed ones would be asked each time whether they count from the end, and vectors of the
processor stay empty.
"""

from __future__ import annotations

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors

LANES = 8
"""Columns that share what is read of the matrix: with float32 half a cache line."""


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def single(starts, columns, values, x, out):
    """out (rows,) = M x, of a vector x (columns,): the sum of four, of every fourth entry each."""
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    for row in numba.prange(out.size):
        a = b = c = d = np.zeros(1, out.dtype)[0]
        first, end = np.uint64(starts[row]), np.uint64(starts[row + 1])
        whole = first + (end - first) // four * four
        for e in range(first, whole, four):
            a += values[e] * x[np.uint64(columns[e])]
            b += values[e + one] * x[np.uint64(columns[e + one])]
            c += values[e + two] * x[np.uint64(columns[e + two])]
            d += values[e + three] * x[np.uint64(columns[e + three])]
        if whole < end:
            a += values[whole] * x[np.uint64(columns[whole])]
        if whole + one < end:
            b += values[whole + one] * x[np.uint64(columns[whole + one])]
        if whole + two < end:
            c += values[whole + two] * x[np.uint64(columns[whole + two])]
        out[row] = (a + b) + (c + d)


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def eight(starts, columns, values, x, out):
    """out (rows, 8) = M x, of eight columns, flat: x (columns * 8,); each with the bits that `single` gives it."""
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    lanes = np.uint64(LANES)
    for row in numba.prange(out.shape[0]):
        first, end = np.uint64(starts[row]), np.uint64(starts[row + 1])
        whole = first + (end - first) // four * four
        sums = np.zeros(4 * LANES, out.dtype)
        for e in range(first, whole, four):
            for k in range(lanes):
                sums[k] += values[e] * x[np.uint64(columns[e]) * lanes + k]
                sums[k + LANES] += values[e + one] * x[np.uint64(columns[e + one]) * lanes + k]
                sums[k + 2 * LANES] += values[e + two] * x[np.uint64(columns[e + two]) * lanes + k]
                sums[k + 3 * LANES] += values[e + three] * x[np.uint64(columns[e + three]) * lanes + k]
        for e in range(whole, end):
            for k in range(lanes):
                sums[(e - whole) * lanes + k] += values[e] * x[np.uint64(columns[e]) * lanes + k]
        for k in range(LANES):
            out[row, k] = (sums[k] + sums[k + LANES]) + (sums[k + 2 * LANES] + sums[k + 3 * LANES])


# In a process forked from one whose OpenMP threads already ran, new threads would be its end. Not cached: numba's
# cache tells functions apart by name, and would load the parallel ones.
single_serial = numba.njit(fastmath={"contract"})(single.py_func)
eight_serial = numba.njit(fastmath={"contract"})(eight.py_func)
