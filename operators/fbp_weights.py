"""Weights of rays before filtered backprojection: share of the arc, redundancy, obliquity."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medrecon.operators.ct_geometry import FanGeometry, Geometry


def ray_weights(geometry: Geometry) -> NDArray[np.float64]:
    """(V, D) weight of each ray before the filter [rad]: share of the arc, redundancy, and the fan's obliquity."""
    angles = np.asarray(geometry.angles)
    if not isinstance(geometry, FanGeometry):  # a ray and its reverse are one: period pi
        return np.repeat(angular_weights(angles, math.pi)[0][:, None], geometry.det_count, axis=1)
    share, start, arc = angular_weights(angles, 2 * math.pi)
    gamma = geometry.fan_angles()
    if arc >= 2 * math.pi:
        redundancy = np.full((len(angles), len(gamma)), 0.5)
    else:
        redundancy = parker_weights(np.mod(angles - start, 2 * math.pi), gamma, arc)
    return share[:, None] * redundancy * np.cos(gamma)


def angular_weights(angles: NDArray[np.float64], period: float) -> tuple[NDArray[np.float64], float, float]:
    """Trapezoid weights of angles on a circle of `period`, with the start and the length of the covered arc.

    A gap over four times the median and over 10 degrees was not measured: its two neighbours get half a median
    step there, and the arc starts behind it. Repeated angles share their weight.
    """
    turned = np.mod(angles, period)
    order = np.argsort(turned, kind="stable")
    gaps = np.diff(turned[order], append=turned[order[0]] + period)  # gap i lies behind sorted view i
    real = gaps[gaps > 1e-9]
    step = float(np.median(real))
    missing = gaps > max(4 * step, math.radians(10))
    if len(real) < 2 or not missing.any():
        start, arc = float(turned[order[0]]) - step / 2, period
    else:
        widest = int(np.argmax(gaps))
        arc = period - float(gaps[widest]) + step
        start = float(turned[order[(widest + 1) % len(order)]]) - step / 2
    gaps = np.where(missing & (len(real) > 1), step, gaps)
    weights = np.empty_like(gaps)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights, start, arc


def parker_weights(beta: NDArray[np.float64], gamma: NDArray[np.float64], arc: float) -> NDArray[np.float64]:
    """(V, D) smooth weights of a fan scan over `arc` < 2 pi; the two measurements of one line add up to 1.

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
