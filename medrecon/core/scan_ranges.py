"""The physical range of what a scan holds: a value outside is damage, or has another unit.

Errors name the entry as the measurement file does.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch

from medrecon.geometry import ConeGeometry, KSpace, Rays, Trajectory
from medrecon.geometry.parallel import ParallelGeometry

PITCH = (1e-7, 1e4)
"""Of voxels and detector elements [mm]: a tenth of a nanometre to ten metres."""
DISTANCE = 1e9
"""The largest length [mm], the source of a beamline."""
WATER = (1e-4, 1e3)
"""Attenuation of water [1/mm]; from 30 eV to 100 GeV it lies within."""


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
    if _in_degrees(np.array(rays.angles)):
        raise ValueError(
            f"geometry/angles: {rays.angles[0]:g} to {rays.angles[-1]:g} look like degrees; angles are in rad"
        )


def _in_degrees(angles: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
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
