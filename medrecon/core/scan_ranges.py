"""The physical range of what a scan holds: a value outside is damage, or has another unit.

Errors name the entry as the measurement file does.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from medrecon.core.noise import MRINoise
from medrecon.core.on_disk import largest
from medrecon.geometry import ConeGeometry, KSpace, Rays, Trajectory
from medrecon.geometry.parallel import ParallelGeometry

Angles = np.ndarray[tuple[int], np.dtype[np.float64]]
PITCH = (1e-7, 1e4)
"""Of voxels and detector elements [mm]: a tenth of a nanometre to ten metres."""
DISTANCE = 1e9
"""The largest length [mm], the source of a beamline."""
WATER = (1e-4, 1e3)
"""Attenuation of water [1/mm]; from 30 eV to 100 GeV it lies within."""
SAMPLES = (1e-12, 1e12)
"""The largest sample of k-space: the squares of its noise have to stay within single precision."""
SHEARED = 0.5
"""Shift of the last row, column or slice from its place at right angles, in voxels, from which it counts."""
TURNS = 2
"""Full turns of a scan without table feed, from which steps are looked at."""
COARSE = 100
"""Views in each of many turns, below which the angles can only be degrees."""
GOLDEN = (math.sqrt(5) - 1) / 2


def check_water(mu_water: float) -> None:
    """Raises ValueError where this is not the attenuation of water in 1/mm."""
    if not isinstance(mu_water, Real):
        raise TypeError(f"noise/mu_water: expected a number, got {mu_water!r}")
    if not WATER[0] <= mu_water <= WATER[1]:
        raise ValueError(
            f"noise/mu_water: expected 1/mm > 0, {WATER[0]:g} to {WATER[1]:g}, got {mu_water}; "
            "water has 0.0192 at the energies of clinical CT"
        )


def check_rays(rays: Rays) -> None:
    """Raises ValueError where a geometry has lengths of no scanner, or angles in degrees."""
    if not all(PITCH[0] <= p <= PITCH[1] for p in np.atleast_1d(rays.det_spacing)):
        raise ValueError(
            f"geometry/det_spacing: expected {PITCH[0]:g} to {PITCH[1]:g} mm, got {rays.det_spacing}; check the units"
        )
    lengths = {"det_offset": np.atleast_1d(rays.det_offset)}
    if not isinstance(rays, ParallelGeometry):
        lengths |= {name: np.atleast_1d(getattr(rays, name)) for name in ("source_origin", "origin_detector")}
    if isinstance(rays, ConeGeometry):
        lengths["heights"] = np.array(rays.heights or 0.0)
    for name, values in lengths.items():
        if np.abs(values).max() > DISTANCE:
            raise ValueError(f"geometry/{name}: {values.max():g} mm is no length of a scanner; check the units")
    _check_angles(rays)


def _check_angles(rays: Rays) -> None:
    """All views at one angle, or angles in degrees."""
    angles = np.array(rays.angles)
    if len(angles) > 1 and not np.ptp(angles):
        raise ValueError(
            f"geometry/angles: all {len(angles)} views are at {angles[0]:g} rad: their angles are missing, or nothing "
            "turned"
        )
    fed = isinstance(rays, ConeGeometry) and bool(np.ptp(rays.heights or (0.0,)))
    if _in_degrees(angles) or _steps_of_degrees(angles, fed):
        raise ValueError(
            f"geometry/angles: {angles[0]:g} to {angles[-1]:g} look like degrees; angles are in rad, degrees * pi / 180"
        )


def _steps_of_degrees(angles: Angles, fed: bool) -> bool:
    """Steps that no scan makes in rad: over 1 rad in several turns, or a coarse scan of dozens of turns.

    Golden angles, which turn on and on, are known by their step; a helix, whose table is fed, by its fine steps.
    """
    turns = float(np.ptp(angles)) / (2 * math.pi)
    if len(angles) < 4 or turns <= TURNS:
        return False
    step = float(np.median(np.abs(np.diff(angles))))
    views = 2 * math.pi / max(step, 1e-9)  # a turn
    if step < 1e-9 or _golden(step) or (views > 2 and abs(views - round(views)) < 1e-3):
        return False
    return step > 1 or (not fed and turns > 4 * TURNS and views < COARSE)


def _golden(step: float) -> bool:
    """Whether a step [rad] is a golden angle of a half or a whole turn, or a tiny one (Wundrak et al. 2016)."""
    parts = [step / arc % 1 for arc in (math.pi, 2 * math.pi)]
    parts += [arc / step % 1 for arc in (math.pi, 2 * math.pi)]
    return min(abs(part - golden) for part in parts for golden in (GOLDEN, 1 - GOLDEN)) < 0.002


def _in_degrees(angles: Angles) -> bool:
    """Whole numbers beyond a turn, or even steps of which a whole number makes a turn in degrees."""
    if len(angles) < 4 or np.ptp(angles) <= 2.1 * math.pi:
        return False
    if (angles % 1 == 0).all():
        return True
    steps = np.diff(angles)
    step = abs(float(np.median(steps)))
    if step < 1e-9 or np.abs(np.abs(steps) - step).max() > 1e-4 * step:
        return False
    in_degrees, in_radians = 360 / step, 2 * math.pi / step  # views a turn
    return abs(in_degrees - round(in_degrees)) < 1e-4 < abs(in_radians - round(in_radians))


def check_kspace(kspace: KSpace) -> None:
    """Raises ValueError where all samples of a trajectory are at one place, or none has a weight."""
    if not isinstance(kspace, Trajectory) or len(kspace.samples) < 2:
        return
    if not bool((kspace.samples != kspace.samples[0]).any()):
        raise ValueError("geometry/trajectory: all samples are at one place; the trajectory is missing")
    if kspace.density is not None and not bool(torch.any(kspace.density > 0)):
        raise ValueError("geometry/density: all weights are 0")


def check_scale(whose: str, largest: float) -> None:
    """Check the largest sample of k-space, which may be 0; what is not finite is refused elsewhere.

    Raises:
        ValueError: too large or too small to compute with in single precision, and by which factor.
    """
    if math.isfinite(largest) and largest and not SAMPLES[0] <= largest <= SAMPLES[1]:
        raise ValueError(
            f"{whose}: the largest sample is {largest:.3g}; computed with are numbers from {SAMPLES[0]:g} to "
            f"{SAMPLES[1]:g}: multiply all by {10.0 ** -round(math.log10(largest)):.0e}"
        )


def check_noise(data: Tensor, noise: MRINoise) -> None:
    """Raises ValueError where no sample of k-space is as large as its noise, which cannot be."""
    most, covariance = largest(data), noise.covariance
    found = covariance.diagonal().abs().max().sqrt() if isinstance(covariance, Tensor) else covariance
    if 0 < most < (sigma := float(found)):
        name = "covariance" if isinstance(covariance, Tensor) else "sigma"
        raise ValueError(
            f"noise/{name}: noise of {sigma:.3g}, and no sample of the data is above {most:.3g}: check its scale"
        )


def check_right_angles(affine: Tensor, shape: tuple[int, ...], slices: bool) -> None:
    """Check that the pixels of a grid (..., H, W) are rectangles, as rays and k-space take them.

    Args:
        slices: whether they have to lie straight above one another too, of a grid (Z, H, W).

    Raises:
        ValueError: the grid is sheared, by how much, and what to do.
    """
    columns = affine[:3, :3].double().T  # x, y, z: steps of one voxel
    sizes = torch.linalg.vector_norm(columns, dim=1)
    cosines = (columns @ columns.T) / sizes[:, None] / sizes
    *_, height, width = shape
    if (shift := _shift(cosines[0, 1], height, sizes[1], sizes[0])) > SHEARED:
        raise ValueError(
            f"the grid is sheared: its rows and columns meet at {_degrees(cosines[0, 1]):.4g} degrees, and the "
            f"last row is {shift:.3g} pixels beside its place; resample the image onto square pixels first"
        )
    if slices and max(_shift(cosines[axis, 2], shape[-3], sizes[2], sizes[axis]) for axis in (0, 1)) > SHEARED:
        angle = _degrees(cosines[:2, 2].abs().max())
        raise ValueError(
            f"the slices are not straight above one another but at {angle:.4g} degrees, as a tilted gantry makes them, "
            "and a cone beam needs them so; resample the volume, or take slices by themselves (fan or parallel)"
        )


def _shift(cosine: Tensor, count: int, step: Tensor, size: Tensor) -> float:
    """By how many voxels of `size` the last of `count` steps is beside its place."""
    return float(cosine.abs() * (count - 1) * step / size)


def _degrees(cosine: Tensor) -> float:
    return math.degrees(math.acos(min(1.0, max(-1.0, float(cosine)))))
