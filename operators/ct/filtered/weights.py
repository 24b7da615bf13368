"""Weights of rays before filtered backprojection: share of the arc, redundancy, obliquity."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import FanGeometry, Geometry
from medrecon.operators.ct.filtered.shifted import check_axis, offset_weights


def ray_weights(geometry: Geometry) -> NDArray[np.float64]:
    """Weight each ray before the filter [rad], (V, D): share of the arc, redundancy, and the fan's obliquity.

    Raises:
        ValueError: a detector that hardly reaches beyond the rotation axis.
    """
    check_axis(geometry.positions())
    angles = np.asarray(geometry.angles)
    share, start, arc = angular_weights(angles, 2 * math.pi)
    sides = np.broadcast_to(offset_weights(geometry.positions()), geometry.shape)
    if not isinstance(geometry, FanGeometry):
        if arc < 2 * math.pi or (sides == 1).all():  # a ray and its reverse are one: period pi
            return np.repeat(angular_weights(angles, math.pi)[0][:, None], geometry.det_count, axis=1)
        return share[:, None] * sides / 2
    gamma = geometry.fan_angles()
    redundancy = sides / 2 if arc >= 2 * math.pi else parker_weights(np.mod(angles - start, 2 * math.pi), gamma, arc)
    return share[:, None] * redundancy * np.cos(gamma)


def angular_weights(angles: NDArray[np.float64], period: float) -> tuple[NDArray[np.float64], float, float]:
    """Return trapezoid weights of angles on a circle of `period`, with the start and the length of the covered arc.

    The neighbours of a gap that was not measured (see `unmeasured`) get half a median step there, and the arc starts
    behind the widest. Repeated angles share their weight.
    """
    order, gaps = circle_gaps(angles, period)
    step, missing = unmeasured(gaps, period)
    start = float(np.mod(angles[order[0]], period)) - step / 2
    arc = period - float(gaps[-1]) + step if missing.any() else period
    gaps = np.where(missing, step, gaps)
    weights = np.empty_like(gaps)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights, start, arc


def circle_gaps(angles: NDArray[np.float64], period: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the order of angles around a circle from the widest gap on, and the gap behind each in that order."""
    turned = np.mod(angles, period)
    order = np.argsort(turned, kind="stable")
    gaps = np.diff(turned[order], append=turned[order[0]] + period)
    widest = len(gaps) - 1 - int(np.argmax(gaps))
    return np.roll(order, widest), np.roll(gaps, widest)


def unmeasured(gaps: NDArray[np.float64], period: float) -> tuple[float, NDArray[np.bool_]]:
    """Return the median step of a scan, and which gaps between its views (the widest last) were not measured.

    Those are over four times the median and over 10 degrees. In a fan scan (period 2 pi) a lone gap, four times
    wider than any other, suffices: its lines were seen from the other side.
    """
    usual = (period - gaps[-1]) / max(len(gaps) - 1, 1)
    real = gaps[gaps > 0.1 * usual]  # without repeated angles
    if len(real) < 2:
        return float(gaps[-1]), np.zeros(len(gaps), dtype=bool)
    step, limit = float(np.median(real)), math.radians(10)
    if period > math.pi:
        limit = min(limit, 4 * float(np.sort(gaps)[-2]))
    return step, gaps > max(4 * step, limit)


def parker_weights(beta: NDArray[np.float64], gamma: NDArray[np.float64], arc: float) -> NDArray[np.float64]:
    """Return smooth weights (V, D) of a fan scan over `arc` < 2 pi; the two measurements of one line add up to 1.

    beta (V,) is the source angle from the start of the arc, gamma (D,) the angle of a ray, positive towards the
    detector axis; the ray (beta, gamma) is also (beta + pi - 2 gamma, -gamma). Parker, Med. Phys. 9:254 (1982),
    with the half fan angle replaced by (arc - pi)/2, so that all of the arc is used. On an arc too short for
    the fan, rays without partner keep weight 1.
    """
    slack = (arc - math.pi) / 2
    b, g = beta[:, None], gamma[None, :]
    rise, fall = slack + g, slack - g  # half widths of the doubly measured ranges at both ends of the arc
    tiny = 1e-12
    first = np.where(b < 2 * rise, np.sin(math.pi / 4 * b / np.maximum(rise, tiny)) ** 2, 1.0)
    left = arc - b
    last = np.where(left < 2 * fall, np.sin(math.pi / 4 * left / np.maximum(fall, tiny)) ** 2, 1.0)
    return np.asarray(np.minimum(first, last))
