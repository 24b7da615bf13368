"""Where the axis of rotation projects on the detector, from the projections alone; sub-pixel.

Positions are detector elements, 0 in the middle of the first one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMOOTH = 1.5
"""Gaussian smoothing of profiles before they are compared [elements]."""
PAIRS, SLICES, ROWS = 12, 16, 256
"""Most pairs of opposite views, slices, and rows of both, that are compared."""
AIR, MARGIN = 0.03, 4
"""An object is whole when this many elements on both sides stay below this part of the largest line integral."""
AGREE = 0.25
"""Elements by which the two estimates of `parallel_centre` may differ."""
OVERLAP, FITS, CLEARLY = 8, 0.8, 0.5
"""Of an axis near an end of the detector: the least part, one in so many, that sees both sides of it; how little mirror
images may differ there, where 1 is nothing in common; and over those about an axis near the middle."""
Array = NDArray[np.float64]


def parallel_centre(lines: Tensor, angles: Array) -> tuple[float, str]:
    """The centre of a parallel-beam scan, line integrals (Z, V, D) at angles (V,) [rad], and how it was found.

    The angles may come in any order and number of turns.

    "symmetry": an even full turn, see `full_turn_centre`; an axis near an end of the detector, where only a part of it
    sees both sides, is found by the opposite views of all angles together. "opposite views": see `opposite_centre`,
    which a drifting background does not disturb. "centroid": see `centroid_centre`, which uses all views and so is more
    precise; taken where the object is whole and the two agree within `AGREE`, or where there are no opposite views.

    Raises:
        ValueError: a single view, or neither works: the object is cut off and no two views are about 180 degrees
            apart, or none that are fit each other.
    """
    if len(angles) < 2:
        raise ValueError("a single view: the rotation centre cannot be found, give `centre`")
    order, angles = in_turn(angles)
    some = np.unique(np.linspace(0, len(lines) - 1, SLICES).round()).tolist()
    profiles = lines[some][:, torch.from_numpy(order)].double().numpy()
    once = np.diff(angles, prepend=-1.0) > 1e-6  # 0 and 360 degrees may both be there
    if full_turn(angles[once]):
        if (far := far_centre(profiles[:, once])) is not None:
            return far, "opposite views"
        if once.all():
            centre = full_turn_centre(lines)
            if abs(2 * centre - (lines.shape[2] - 1)) > lines.shape[2] / 2 - 2:
                raise ValueError("opposite views fit nowhere: the rotation centre cannot be found, give `centre`")
            return centre, "symmetry"
    air = air_margins(profiles)
    centroid = centroid_centre(profiles, angles, air) if min(air) >= MARGIN and np.ptp(angles) > math.pi / 2 else None
    try:
        opposite = opposite_centre(profiles, angles)
    except ValueError:
        if centroid is None:
            raise
        return centroid, "centroid"
    if centroid is not None and abs(centroid - opposite) < AGREE:
        return centroid, "centroid"
    return opposite, "opposite views"


def in_turn(angles: Array) -> tuple[NDArray[np.int64], Array]:
    """Sort angles (V,) around the circle from the end of its widest gap on: the order, and the angles, rising [rad]."""
    turned = np.mod(angles, 2 * math.pi)
    order = np.argsort(turned, kind="stable")
    gaps = np.diff(turned[order], append=turned[order[0]] + 2 * math.pi)
    order = np.roll(order, -1 - int(np.argmax(gaps)))
    first = turned[order[0]]
    return order, first + np.mod(turned[order] - first, 2 * math.pi)


def full_turn(angles: Array) -> bool:
    """Whether the views (V,) go evenly around once, the end excluded."""
    gaps = np.abs(np.diff(angles))
    return bool(np.ptp(gaps) < 0.01 * gaps.mean() and abs(np.ptp(angles) + gaps.mean() - 2 * math.pi) < gaps.mean() / 2)


def full_turn_centre(lines: Tensor) -> float:
    """The centre of an even full turn, parallel or fan-flat, (Z, V, D).

    Every line is seen from both sides, at positions mirrored about the axis: the mean of all views is symmetric
    about it. A fan's flat detector has to be perpendicular to the central ray.
    """
    mean = lines.mean(1, dtype=torch.float64).numpy()
    return mirror_centre(mean, mean)


def far_centre(lines: Array) -> float | None:
    """The centre of an even full turn (Z, V, D) in order, if it lies in an outer quarter of the detector.

    So scans lie that widen their field of view: the object reaches beyond one end, and half of every line is seen once.
    """
    half, count = lines.shape[1] // 2, lines.shape[2]
    first = np.unique(np.linspace(0, half - 1, max(PAIRS, ROWS // len(lines))).round().astype(int))
    here, there = (lines[:, views].reshape(-1, count) for views in (first, first + half))
    centre = mirror_centre(here, there, least=max(4 * MARGIN, count // OVERLAP))
    return centre if abs(2 * centre - (count - 1)) > count / 2 + 1 else None


def air_margins(lines: Array) -> tuple[int, int]:
    """Elements before and behind the object that see air in all views of (Z, V, D)."""
    busy = np.nonzero(_smooth(lines).max((0, 1)) > AIR * np.quantile(lines, 0.999))[0]
    return (int(busy[0]), lines.shape[-1] - 1 - int(busy[-1])) if len(busy) else (0, 0)


def centroid_centre(lines: Array, angles: Array, air: tuple[int, int]) -> float:
    """The centre from the centroids of (Z, V, D), which follow centre + x cos t + y sin t for any object.

    The first-order consistency condition of the Radon transform; Azevedo et al., IEEE Trans. Nucl. Sci. 37:1525
    (1990). A background that drifts would pull the centroid: the line between the air on both sides is taken off.
    """
    elements = np.arange(lines.shape[-1], dtype=float)
    left, right = elements[: air[0]], elements[len(elements) - air[1] :]
    ends = [lines[..., part.astype(int)].mean(-1, keepdims=True) for part in (left, right)]
    place = (elements - left.mean()) / (right.mean() - left.mean())
    object_only = (lines - ends[0] * (1 - place) - ends[1] * place)[..., air[0] : len(elements) - air[1]]
    # Slices share the centre: their sum is one object.
    mass, moment = object_only.sum((0, 2)), (object_only * elements[air[0] : len(elements) - air[1]]).sum((0, 2))
    design = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    return float(np.linalg.lstsq(design, moment / mass, rcond=None)[0][0])


def opposite_centre(lines: Array, angles: Array) -> float:
    """The centre from views about 180 degrees apart, p(t + pi, s) = p(t, -s), of (Z, V, D).

    Views that miss 180 degrees by a little give a centre that is off in proportion: a line through the centres of
    several pairs is read off where it misses nothing.

    Raises:
        ValueError: no two views are about 180 degrees apart.
    """
    rising = np.argsort(angles)
    after = np.searchsorted(angles[rising], angles[rising] + math.pi)
    first, second = np.repeat(rising, 9), np.add.outer(after, np.arange(-4, 5)).ravel()
    first, second = first[within := (second >= 0) & (second < len(angles))], rising[second[within]]
    miss = np.abs(angles[second] - angles[first]) - math.pi
    order = np.argsort(np.abs(miss), kind="stable")[:PAIRS]
    first, second, found = first[order], second[order], miss[order]
    step = float(np.median(np.abs(np.diff(angles))))
    if abs(found[0]) > max(1.5 * step, math.radians(1)):
        raise ValueError(
            f"the views span {math.degrees(np.ptp(angles)):.1f} degrees, none is opposite to another, and "
            f"the object is cut off: the rotation centre cannot be found, give `centre`"
        )
    near = np.abs(found) <= abs(found[0]) + 3.5 * step
    centres = [mirror_centre(lines[:, i], lines[:, j]) for i, j in zip(first[near], second[near])]
    several = float(np.ptp(found[near])) > 0.5 * step
    return float(np.polyfit(found[near], centres, 1)[1] if several else np.mean(centres))


def mirror_centre(a: Array, b: Array, least: int | None = None) -> float:
    """c such that a(c + x) = b(c - x) for profiles (N, D), one c for all rows: where their slopes differ least.

    Slopes, so that offsets do not matter; only where both profiles have data, which is at least half of them, or
    `least` elements where that fits clearly better for its size.
    """
    count = a.shape[-1]
    rising, falling = np.gradient(_smooth(a), axis=-1), -np.gradient(_smooth(b), axis=-1)[:, ::-1]
    # Mirrored, element j of b lies at count - 1 - j: equal when shifted by 2 c - (count - 1).
    reach = count // 2 if least is None else max(count // 2, count - least)
    shifts = np.arange(-reach, reach + 1)
    blurred = min(math.ceil(3 * SMOOTH), count // 16)  # by the ends of the detector
    costs, sizes = np.empty(len(shifts)), np.empty(len(shifts))
    for n, shift in enumerate(shifts):
        low, high = max(0, shift) + blurred, min(count, count + shift) - blurred
        one, other = rising[:, low:high], falling[:, low - shift : high - shift]
        costs[n] = np.square(one - other).mean()
        sizes[n] = (np.square(one) + np.square(other)).mean()
    near = np.abs(shifts) < count // 2
    best = int(np.argmin(np.where(near, costs, np.inf)))
    nothing = 0.002 * sizes.max() + np.finfo(float).tiny  # fits nothing: air is no mirror image of air
    relative = (costs + nothing) / (sizes + nothing)
    wide = int(np.argmin(relative[1:-1])) + 1
    bottomless = abs(int(shifts[best])) >= count // 2 - 1  # still falling where the search ends
    clearly = relative[wide] < FITS and (bottomless or relative[wide] < CLEARLY * relative[best])
    if least is not None and clearly:
        best = wide
    left, bottom, right = costs[best - 1 : best + 2]
    curvature = left - 2 * bottom + right
    between = (left - right) / (2 * curvature) if curvature > 0 else 0.0
    return (count - 1 + float(shifts[best] + between)) / 2


def _smooth(profiles: Array) -> Array:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(profiles, SMOOTH, axis=-1, mode="nearest"))
