"""Whether line integrals can be those of an object that turns as the geometry says: conditions that any object keeps.

Helgason, The Radon Transform (1980), Ludwig, Comm. Pure Appl. Math. 19:49 (1966): in parallel rays the n-th moment of a
view along the detector is a homogeneous polynomial of degree n in (cos t, sin t).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.rotation_centre import MARGIN, air_margins
from medrecon.core.noise import MAD
from medrecon.geometry import Geometry, ImageGrid, ParallelGeometry

Array = NDArray[np.float64]
SLICES = 16
"""As many are looked at."""
LEAST = 8
"""Views and elements from which moments say something."""
ARC = 0.9 * math.pi
"""Span of the angles from which they do."""
SEEN = (0.2, 0.01)
"""Least variation of the shadow's centre [elements] and of its square width (relative) that is looked at: less comes of
elements of a finite size and of drifting beams."""
NOISE = 5.0
"""Times the noise of a moment that its variation is at least, to be looked at."""
UNEXPLAINED = 0.35
"""Part of the variation, a standard deviation, that the angles have to explain all but."""
BESIDE = 1.0
"""Elements that the axis may be beside its place."""
EXCHANGED = 2.0
"""Times as much as along the detector the sum of a view changes from view to view, where both were exchanged."""
MISSED = (0.02, 0.2)
"""Part of the object in rays beside the image: what is warned of, and what is refused."""


def check_exchanged(lines: Tensor) -> None:
    """Compare how the sums of views and of elements of (Z, N, N) change: every view sees the whole object.

    Raises:
        ValueError: views and elements are exchanged.
    """
    if lines.shape[1] != lines.shape[2] or lines.shape[1] < LEAST:
        return
    total = some(lines).sum(0)
    by_view, by_element = total.sum(1), total.sum(0)
    if not total.sum() > 0:
        return
    if np.std(by_view) > EXCHANGED * np.std(by_element):
        raise ValueError(
            "sinogram: its sums change from view to view and hardly along the detector, as with both exchanged: the "
            "order is (view, element), sinogram.T brings it there; consistent=False takes it as it is"
        )


def check_moments(lines: Tensor, geometry: ParallelGeometry) -> None:
    """Compare moments 1 and 2 of parallel rays (Z, V, D) with those of any object at these angles, where all of it is
    seen.

    Raises:
        ValueError: angles that are not those of the views, or an axis of rotation elsewhere, and where.
    """
    angles, profiles = np.array(geometry.angles), some(lines)
    if min(profiles.shape[1:]) < LEAST or np.ptp(angles) < ARC or min(air_margins(profiles)) < MARGIN:
        return
    s, wrong, beside, weight = geometry.positions(), 0, [], []
    c, n = np.cos(angles), np.sin(angles)
    linear, square = np.stack([np.ones_like(c), c, n], 1), np.stack([c * c, c * n, n * n], 1)
    for views in profiles:
        mass = views.sum(1)
        if not mass.min() > 0.2 * mass.max():  # air, or next to it
            continue
        sigma = white_noise(views) / mass.mean()
        first = views @ s / mass
        centre = _fit(linear, first)[0]
        from_axis = s - centre
        second = views @ from_axis**2 / mass
        wrong += _misfits(linear, first, sigma * _norm(s), SEEN[0] * geometry.det_spacing) or _misfits(
            square, second, sigma * _norm(from_axis**2), SEEN[1] * float(second.mean())
        )
        beside.append(centre)
        weight.append(mass.mean())
    if not beside:
        return
    if 2 * wrong > len(beside):
        raise ValueError(
            "geometry: the centre and the width of the object's shadow do not change from view to view as they do for "
            "any object at these angles: are these the angles of these views, in their order and in rad? (view, "
            "element) is the order of axes; consistent=False takes it as it is"
        )
    off = float(np.average(beside, weights=weight))
    if abs(off) > BESIDE * geometry.det_spacing:
        raise ValueError(
            f"geometry: the axis of rotation is {off:.4g} mm beside its place on the detector, "
            f"{off / geometry.det_spacing:.1f} elements, as the centre of the shadow moves: give "
            f"det_offset={geometry.det_offset - off:.4g}; consistent=False takes it as it is"
        )


def _misfits(design: Array, values: Array, noise: float, least: float) -> bool:
    """Whether values of the views change, and not as the design says."""
    changes = float(np.std(values))
    rest = values - design @ _fit(design, values)
    return changes > max(NOISE * noise, least) and _norm(rest) / len(rest) ** 0.5 > UNEXPLAINED * changes


def _fit(design: Array, values: Array) -> Array:
    return np.asarray(np.linalg.lstsq(design, values, rcond=None)[0])


def white_noise(views: Array) -> float:
    """Return the standard deviation of white noise in (V, D), from second differences along the detector."""
    return float(np.median(np.abs(np.diff(views, 2, axis=1)))) * MAD / 6**0.5


def beside_image(lines: Tensor, geometry: Geometry, grid: ImageGrid) -> float:
    """Return the part of the object (Z, V, D) that rays see that miss the image: what they see over what all see."""
    points, directions = geometry.rays()
    normal = np.stack([-directions[..., 1], directions[..., 0]], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    x0, x1, y0, y1 = grid.window
    reach = np.abs(normal[..., 0]) * (x1 - x0) / 2 + np.abs(normal[..., 1]) * (y1 - y0) / 2
    seen, missing = some(lines).mean(0), np.abs((points * normal).sum(-1)) > reach
    return float(seen[missing].sum() / seen.sum()) if seen.sum() > 0 else 0.0


def some(lines: Tensor) -> Array:
    """Return at most `SLICES` of them, evenly spread, in float64."""
    chosen = np.unique(np.linspace(0, len(lines) - 1, SLICES).round()).tolist()
    return np.asarray(lines[chosen].double().numpy())


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values))
