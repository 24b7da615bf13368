"""Compiled loop of `helical`: the rays of one fan, each from the cone-beam rays nearest in z."""

from __future__ import annotations

import math

import numba
import numpy as np

# Kernels are typed by numba: annotations would say less than the docstring.
# mypy: ignore-errors

TURN = 2 * math.pi


@numba.njit(cache=True, inline="always")
def _find(angles, count, a):
    """Left neighbour of a in the ascending angles, and the share of the right one; -1 outside."""
    if a < angles[0] - 1e-7 or a > angles[count - 1] + 1e-7:
        return -1, 0.0
    i = int((a - angles[0]) / (angles[count - 1] - angles[0]) * (count - 1))
    i = min(max(i, 0), count - 2)
    while i > 0 and angles[i] > a:
        i -= 1
    while i < count - 2 and angles[i + 1] < a:
        i += 1
    return i, min(max((a - angles[i]) / (angles[i + 1] - angles[i]), 0.0), 1.0)


@numba.njit(cache=True, inline="always")
def _split(place, count):
    """Left neighbour and the share of the right one, of a place clamped to 0..count - 1."""
    place = min(max(place, 0.0), count - 1.0)
    i = min(int(place), max(count - 2, 0))
    return i, np.float32(place - i)


@numba.njit(cache=True, nogil=True)
def fan_rays(
    data,
    photons,
    betas,
    z,
    turn_of_z,
    half,
    row_pitch,
    row_offset,
    views,
    counts,
    angles,
    heights,
    centres,
    spots,
    lags,
    columns,
    feet,
    ends,
    out,
    total,
):
    """out (N, D) line integrals of the fan at height z; total (N, D) photons they are worth, 0 for a ray not measured.

    data (V, R, D), photons (V, D), (V, 1) or (1, 1). Of each focal spot s: counts[s] views, their index, angle
    (ascending), height of the spot and of the detector's middle, (S, K). Of each way w a fan ray can have been
    measured, directly or as its opposite, by spot spots[w]: angle beyond beta, detector column (< 0: none), distance of
    the foot of the perpendicular from the axis and of the detector from the spot, in the plane, (W, D). turn_of_z[s]:
    angle at which spot s passes z.
    """
    _, rows, detectors = data.shape
    several, wide = photons.shape[0] > 1, photons.shape[1] > 1
    for b in range(len(betas)):
        for d in range(out.shape[1]):
            value, weights, variance = 0.0, 0.0, 0.0
            for w in range(len(spots)):
                if columns[w, d] < 0:
                    continue
                s = spots[w]
                first = betas[b] + lags[w, d]
                near = math.floor((turn_of_z[s] - first) / TURN + 0.5)
                for turn in range(near - 1, near + 2):
                    i, share = _find(angles[s], counts[s], first + turn * TURN)
                    if i < 0:
                        continue
                    source = heights[s, i] + share * (heights[s, i + 1] - heights[s, i])
                    weight = 1 - abs(z - source) / half
                    if weight <= 0:
                        continue
                    middle = centres[s, i] + share * (centres[s, i + 1] - centres[s, i])
                    slope = (z - source) / feet[w, d]
                    row = (source + slope * ends[w, d] - middle - row_offset) / row_pitch + (rows - 1) / 2
                    weight *= min(1.0, min(row, rows - 1 - row) + 0.5)  # fades out at the detector's edge
                    if weight <= 0:
                        continue
                    r, up = _split(row, rows)
                    c, right = _split(columns[w, d], detectors)
                    r1, c1 = min(r + 1, rows - 1), min(c + 1, detectors - 1)
                    sample = 0.0
                    for k in range(2):
                        image = data[views[s, i + k]]
                        low = image[r, c] + right * (image[r, c1] - image[r, c])
                        high = image[r1, c] + right * (image[r1, c1] - image[r1, c])
                        sample += (share if k else 1 - share) * (low + up * (high - low))
                    short = 1 / math.sqrt(1 + slope * slope)
                    value += weight * short * sample
                    weights += weight
                    # The weights of the eight samples squared, over the photons of one: they are much the same.
                    spread = (1 - 2 * share * (1 - share)) * (1 - 2 * right * (1 - right)) * (1 - 2 * up * (1 - up))
                    count = photons[views[s, i] if several else 0, c if wide else 0]
                    variance += (weight * short) ** 2 * spread / max(count, np.float32(1e-6))
            total[b, d] = weights * weights / variance if weights > 0 else 0.0
            out[b, d] = value / weights if weights > 0 else 0.0
