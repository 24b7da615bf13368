"""Compiled products of a sparse matrix (CSR) with one vector or eight side by side. A thread owns some rows and every
sum has one order, so the result does not depend on the number of threads.

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


@numba.njit(cache=True, parallel=True, fastmath={"contract", "reassoc", "nsz"})
def single(starts, columns, values, x, out):
    """out (rows,) = M x, of a vector x (columns,)."""
    for row in numba.prange(out.size):
        total = np.zeros(1, out.dtype)[0]
        for e in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
            total += values[e] * x[np.uint64(columns[e])]
        out[row] = total


@numba.njit(cache=True, parallel=True, fastmath={"contract"})
def eight(starts, columns, values, x, out):
    """out (rows, 8) = M x, of eight columns, flat: x (columns * 8,). Written out, so that they stay in registers."""
    lanes = np.uint64(LANES)
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    five, six, seven = np.uint64(5), np.uint64(6), np.uint64(7)
    for row in numba.prange(out.shape[0]):
        a = b = c = d = e = f = g = h = np.zeros(1, out.dtype)[0]
        for i in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
            w, at = values[i], np.uint64(columns[i]) * lanes
            a, b, c, d = a + w * x[at], b + w * x[at + one], c + w * x[at + two], d + w * x[at + three]
            e, f, g, h = e + w * x[at + four], f + w * x[at + five], g + w * x[at + six], h + w * x[at + seven]
        o = out[row]
        o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7] = a, b, c, d, e, f, g, h


# In a process forked from one whose OpenMP threads already ran, new threads would be its end. Not cached: numba's
# cache tells functions apart by name, and would load the parallel ones.
single_serial = numba.njit(fastmath={"contract", "reassoc", "nsz"})(single.py_func)
eight_serial = numba.njit(fastmath={"contract"})(eight.py_func)
