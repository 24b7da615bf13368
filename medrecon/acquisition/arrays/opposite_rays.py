"""Whether the rays of a fan beam that are measured twice, from both ends, agree: p(t, g) = p(t + pi + 2 g, -g)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.arrays.consistency import BESIDE, LEAST, NOISE, some, white_noise
from medrecon.acquisition.rotation_centre import full_turn, full_turn_centre, in_turn
from medrecon.geometry import FanGeometry

Array = NDArray[np.float64]
GAP = math.pi / 8
"""Widest gap between neighbouring views of a full turn that is looked at."""
BLUR = 64
"""Profiles are smoothed by one in so many of the detector: views far apart see fine detail from other sides."""
CHANGES = 0.02
"""Least change from view to view, relative, that is looked at: round objects have less."""
DIFFER = 0.2
"""Squared difference over the squared changes of both. Of 10 CT slices in 30 to 256 views at most 0.03 with the right
angles, 0.6 and more with others."""
STANDS_OUT = 20.0
"""Times its noise that the mean of all views spans at least, to look for the axis in it."""
TWICE = 0.5
"""Part of the detector that sees both sides of the axis, from which the axis is looked for."""


def check_opposite(lines: Tensor, geometry: FanGeometry) -> None:
    """Compare rays of a full turn (Z, V, D) that run in opposite directions.

    Raises:
        ValueError: angles, or distances, that are not those of the views; an axis of rotation elsewhere, and where.
    """
    order, angles = in_turn(np.array(geometry.angles))
    gaps = np.diff(angles, append=angles[0] + 2 * math.pi)
    if min(geometry.shape) < LEAST or gaps.max() > GAP or geometry.focal_shifts:
        return
    middle = (geometry.det_count - 1) / 2
    expected = middle - geometry.det_offset / geometry.det_spacing
    seen = abs(expected - middle) < TWICE * middle and full_turn(np.array(geometry.angles))
    if seen and _stands_out(lines) and abs(off := full_turn_centre(lines) - expected) > BESIDE:
        raise ValueError(
            f"geometry: the axis of rotation is {off * geometry.det_spacing:.4g} mm beside its place on the detector, "
            f"{off:.1f} elements, as opposite rays show: give "
            f"det_offset={geometry.det_offset - off * geometry.det_spacing:.4g}; consistent=False takes it as it is"
        )
    found = [_difference(views[order], angles, geometry) for views in some(lines)]
    known = [value for value in found if value is not None]
    if known and np.median(known) > DIFFER:
        raise ValueError(
            "geometry: rays that were measured twice, from opposite sides, do not agree: are these the angles of these "
            "views, in their order, direction and in rad, and the distances of source and detector in mm? (view, "
            "element) is the order of axes; consistent=False takes it as it is"
        )


def _stands_out(lines: Tensor) -> bool:
    """Whether the mean of all views shows an object, and not noise alone."""
    mean = some(lines).mean((0, 1))
    return bool(np.ptp(mean) > STANDS_OUT * white_noise(mean[None]))


def _difference(views: Array, angles: Array, geometry: FanGeometry) -> float | None:
    """Squared difference of opposite rays of (V, D), angles rising, over their changes; None where nothing changes."""
    from scipy.ndimage import gaussian_filter1d

    width = max(1.0, geometry.det_count / BLUR)
    noise = white_noise(views) / (2 * math.pi**0.5 * width) ** 0.5
    smooth = gaussian_filter1d(views, width, axis=-1, mode="nearest")
    u, gamma = geometry.positions(), geometry.fan_angles()
    _, directions = geometry.rays()
    turn = np.unwrap(np.arctan2(directions[0, :, 1], directions[0, :, 0]))
    sense = np.sign(turn[-1] - turn[0])  # a ray's direction is that of its view + sense * gamma
    mirrored = np.stack([np.interp(-u, u, view) for view in smooth])
    other = [
        np.interp(angles + 2 * sense * g + math.pi, angles, column, period=2 * math.pi)
        for g, column in zip(gamma, mirrored.T)
    ]
    seen = (-u >= u[0]) & (-u <= u[-1])
    here, there = smooth[:, seen], np.stack(other, 1)[:, seen]
    changes = _changes(here) + _changes(there)
    if not changes / 2 > max(NOISE * noise, CHANGES * float(np.sqrt(np.mean(here**2)))) ** 2:
        return None
    return float(np.mean((here - there) ** 2)) / changes


def _changes(views: Array) -> float:
    """Mean square of the changes from view to view."""
    return float(np.mean((views - views.mean(0)) ** 2))
