"""What a simulation would refuse, found out before it begins, and how large its data become."""

from __future__ import annotations

import math

import torch

from medrecon.core.memory import check_memory
from medrecon.core.volume import Volume
from medrecon.geometry import VolumeGrid
from medrecon.simulate.ct import reconstruction_grid
from medrecon.simulate.ct_rays import WHOLE, Kind, scan_rays
from medrecon.simulate.mri import PhaseEncoding, free_axis, mean_signal, sampling

COPIES = 3
"""Of the data that are in memory at once: without noise, with noise, and as they are written."""
KERNEL = 500
"""Bytes of interpolation that each sample along a trajectory takes."""


def check_ct(volume: Volume, *, geometry: Kind, views: int, arc: float | None, size: int | None) -> int:
    """Check what `simulate_ct` would refuse; return the bytes of its data.

    Raises:
        ValueError: as `simulate_ct`, or more data than there is memory.
    """
    plane, _ = reconstruction_grid(volume, size)
    slices = len(volume.data)
    if geometry in WHOLE:
        rays = scan_rays(geometry, 2, arc, VolumeGrid((slices, *plane.shape), (volume.spacing[2], *plane.spacing)))
        slices = 1
    else:
        rays = scan_rays(geometry, 2, arc, plane)
    elements = math.prod(rays.shape[1:])
    stored = 4 * slices * elements * len(rays.angles) * views // 2
    check_memory(COPIES * stored, f"{views} views of {elements} elements, {slices} times")
    return stored


def check_cartesian(
    volume: Volume,
    *,
    accel: float,
    mask: str,
    acs: int,
    partial_fourier: float,
    coils: int,
    phase_encoding: PhaseEncoding | str,
    seed: int,
) -> int:
    """Check what `simulate_mri` would refuse; return the bytes of its data and maps.

    Raises:
        ValueError: as `simulate_mri`, or more data than there is memory.
    """
    mean_signal(volume.data)
    slices, *shape = volume.data.shape
    stored = 2 * 8 * slices * coils * math.prod(shape)
    fine = 3 * 4 * 8 * coils * math.prod(shape)  # maps and images of one slice, on a grid twice as fine
    check_memory(stored + fine, f"{coils} coils")
    direction: PhaseEncoding = "vertical" if phase_encoding == "vertical" else "horizontal"
    if phase_encoding == "auto":
        direction = free_axis(volume.data)
    generator = torch.Generator().manual_seed(seed)
    sampling(mask, (shape[0], shape[1]), accel, acs, partial_fourier, direction, generator)
    return stored


def check_trajectory(volume: Volume, *, readouts: int, coils: int) -> int:
    """Check what `simulate_noncartesian` would refuse; return the bytes of its data and maps, of full spokes.

    Raises:
        ValueError: no signal, or more data than there is memory.
    """
    mean_signal(volume.data)
    slices, *shape = volume.data.shape
    samples = readouts * 2 * max(shape)
    stored = 8 * slices * coils * (samples + math.prod(shape))
    check_memory(stored + 8 * coils * samples + KERNEL * samples, f"{readouts} readouts and {coils} coils")
    return stored
