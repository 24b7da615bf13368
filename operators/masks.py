"""Cartesian sampling masks. Columns (the last axis, W) are phase-encoding lines; the fully sampled centre (ACS) is
counted in the acceleration: R = all samples / acquired samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int, int]


def acceleration(mask: Tensor) -> float:
    """True R of a mask: its samples over the acquired ones. Raises ValueError when none is acquired."""
    acquired = int((mask != 0).sum())
    if acquired == 0:
        raise ValueError("acceleration: the mask has no sample")
    return mask.numel() / acquired


def centre(size: int, width: int) -> slice:
    """The `width` samples around zero frequency, which is at size // 2 (SigPy's convention, odd and even)."""
    start = size // 2 - width // 2
    return slice(start, start + width)


def random_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator) -> Tensor:
    """Random columns, uniform outside `acs` central ones: (H, W) bool.

    Args:
        shape: (H, W) of k-space. accel: R >= 1, ACS included. acs: central columns, all acquired.

    Raises:
        ValueError: accel < 1, an ACS wider than the image, or one that alone exceeds W / accel.
    """
    outside, count = _budget(shape, accel, acs)
    chosen = outside[torch.randperm(len(outside), generator=generator)[:count]]
    return _columns(shape, acs, chosen)


def equispaced_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator) -> Tensor:
    """Columns at equal distance (rounded) with a random offset, and `acs` central ones: (H, W) bool.

    As fastMRI's EquispacedMaskFraction the distance is widened so that R includes the ACS. Arguments and errors as
    `random_mask`.
    """
    outside, count = _budget(shape, accel, acs)
    distance = len(outside) / max(count, 1)
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    index = ((torch.arange(count, dtype=torch.float64) + offset) * distance).floor().long()
    return _columns(shape, acs, outside[index.clamp_max(len(outside) - 1)])


def poisson_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator) -> Tensor:
    """Variable-density Poisson disc inside an ellipse (SigPy) with an acs x acs centre: (H, W) bool.

    Undersamples both axes, as a 3D acquisition with two phase-encoding axes does. NumPy's global generator is left
    as it was. Arguments and errors as `random_mask`; also ValueError where R cannot be met within 10 %.
    """
    _check(shape, accel, acs)
    if acs > shape[0] or acs**2 * accel > shape[0] * shape[1]:
        raise ValueError(f"poisson_mask: an ACS of {acs} x {acs} exceeds {shape} / R = {accel}; lower acs or R")
    if accel == 1:
        return torch.ones(shape, dtype=torch.bool)
    import sigpy.mri

    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    try:
        points = sigpy.mri.poisson(shape, accel, calib=(acs, acs), seed=seed, tol=0.05)
    except ValueError as error:
        raise ValueError(f"poisson_mask: no mask of R = {accel} on {shape} with acs = {acs}") from error
    mask = torch.from_numpy(abs(points) > 0)
    mask[centre(shape[0], acs), centre(shape[1], acs)] = True
    if abs(acceleration(mask) / accel - 1) > 0.1:
        raise ValueError(f"poisson_mask: R = {acceleration(mask):.2f} instead of {accel} on {shape}; change acs or R")
    return mask


def _check(shape: Shape, accel: float, acs: int) -> None:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"mask: shape must be (H, W), got {tuple(shape)}")
    if not accel >= 1:
        raise ValueError(f"mask: acceleration must be >= 1, got {accel}")
    if not 0 <= acs <= shape[1]:
        raise ValueError(f"mask: acs must be between 0 and the {shape[1]} phase-encoding columns, got {acs}")


def _budget(shape: Shape, accel: float, acs: int) -> tuple[Tensor, int]:
    """The columns outside the ACS and how many of them to acquire."""
    _check(shape, accel, acs)
    total = max(1, round(shape[1] / accel))
    if total < acs:
        raise ValueError(f"mask: acs = {acs} alone exceeds the {total} columns of R = {accel}; take a smaller acs or R")
    columns = torch.arange(shape[1])
    inner = centre(shape[1], acs)
    return columns[(columns < inner.start) | (columns >= inner.stop)], total - acs


def _columns(shape: Shape, acs: int, chosen: Tensor) -> Tensor:
    line = torch.zeros(shape[1], dtype=torch.bool)
    line[chosen] = True
    line[centre(shape[1], acs)] = True
    return line.expand(shape).clone()
