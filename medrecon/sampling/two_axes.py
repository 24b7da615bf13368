"""Cartesian sampling that undersamples both axes, as a 3D acquisition with two phase-encoding axes does.

Every pattern has a fully sampled centre (ACS) of acs x acs samples, counted in the acceleration, and shares the
arguments and errors of `masks.random_mask`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrecon.sampling.lines import Shape, acceleration, centre, check_pattern, gaussian_odds

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
"""rad, 111.246 degrees: successive full spokes fill the largest gap (Winkelmann et al., IEEE TMI 26 (2007) 68-76)."""


def gaussian_2d_mask(
    shape: Shape, accel: float, acs: int, generator: torch.Generator, *, width: float = 1 / 3
) -> Tensor:
    """Draw random samples, the denser the nearer to zero frequency along both axes: (H, W) bool."""
    _check(shape, accel, acs)
    mask = _centre_square(shape, acs)
    count = max(1, round(mask.numel() / accel)) - acs**2
    odds = gaussian_odds(shape[0], width)[:, None] * gaussian_odds(shape[1], width)
    odds = torch.where(mask, 0, odds.clamp_min(1e-30)).flatten()
    if count > 0:
        mask.view(-1)[torch.multinomial(odds, count, generator=generator)] = True
    return mask


def golden_angle_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator) -> Tensor:
    """Choose lines through zero frequency, each turned by the golden angle from the last: (H, W) bool, one sample wide.

    The first angle is random; spokes are added up to the number that comes nearest to R, and each runs to the edge
    of k-space. Also ValueError where R cannot be met within 10 %.
    """
    _check(shape, accel, acs)
    if accel == 1:
        return torch.ones(shape, dtype=torch.bool)
    target = shape[0] * shape[1] / accel
    angle = float(math.pi * torch.rand((), generator=generator, dtype=torch.float64))
    before = mask = _centre_square(shape, acs)
    while int(mask.sum()) < target:
        before, mask = mask, mask.clone()
        mask[spoke(shape, angle)] = True
        angle += GOLDEN_ANGLE
    best = min((m for m in (before, mask) if bool(m.any())), key=lambda m: abs(int(m.sum()) - target))
    return _met(best, "golden_angle_mask", accel, acs)


def spoke(shape: Shape, angle: float) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the grid points nearest to a line through zero frequency.

    One for each step along the axis it is nearer to. `angle`: rad, from the column axis towards the row axis.
    """
    across, along = math.sin(angle), math.cos(angle)
    steep = abs(across) > abs(along)
    size, other = (shape[0], shape[1]) if steep else (shape[1], shape[0])
    step = torch.arange(size)
    slope = along / across if steep else across / along
    place = other // 2 + torch.round((step - size // 2) * slope).long()
    inside = (place >= 0) & (place < other)
    return (step[inside], place[inside]) if steep else (place[inside], step[inside])


def poisson_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator) -> Tensor:
    """Draw a variable-density Poisson disc inside an ellipse (SigPy): (H, W) bool.

    NumPy's global generator is left as it was. Also ValueError where R cannot be met within 10 %.
    """
    _check(shape, accel, acs)
    if accel == 1:
        return torch.ones(shape, dtype=torch.bool)
    import sigpy.mri

    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    try:
        points = sigpy.mri.poisson(shape, accel, calib=(acs, acs), seed=seed, tol=0.05)
    except ValueError as error:
        raise ValueError(f"poisson_mask: no mask of R = {accel} on {shape} with acs = {acs}") from error
    return _met(torch.from_numpy(abs(points) > 0) | _centre_square(shape, acs), "poisson_mask", accel, acs)


def _check(shape: Shape, accel: float, acs: int) -> None:
    check_pattern(shape, accel, acs)
    if acs > shape[0] or acs**2 * accel > shape[0] * shape[1]:
        raise ValueError(f"mask: an ACS of {acs} x {acs} exceeds {tuple(shape)} / R = {accel}; lower acs or R")


def _centre_square(shape: Shape, acs: int) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[centre(shape[0], acs), centre(shape[1], acs)] = True
    return mask


def _met(mask: Tensor, name: str, accel: float, acs: int) -> Tensor:
    true = acceleration(mask)
    if abs(true / accel - 1) > 0.1:
        raise ValueError(f"{name}: R = {true:.2f} instead of {accel} on {tuple(mask.shape)}, acs = {acs}; change them")
    return mask
