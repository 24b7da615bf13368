"""Cartesian sampling of whole columns: the last axis, W, is the phase-encoding one. `sampling.draw` calls a pattern by
its name and describes it; `masks_2d` undersamples both axes, `fastmri_masks` reproduces those of fastMRI.

The fully sampled centre (ACS) is counted in the acceleration: R = all samples / acquired samples.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Shape = tuple[int, int]
Side = Literal["left", "right"]


def acceleration(mask: Tensor) -> float:
    """Return the true R of a mask: its samples over the acquired ones. Raises ValueError when none is acquired."""
    acquired = int((mask != 0).sum())
    if acquired == 0:
        raise ValueError("acceleration: the mask has no sample")
    return mask.numel() / acquired


def centre(size: int, width: int) -> slice:
    """Return the `width` samples around zero frequency, which is at size // 2 (SigPy's convention, odd and even)."""
    start = size // 2 - width // 2
    return slice(start, start + width)


def random_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator) -> Tensor:
    """Draw random columns, uniform outside `acs` central ones: (H, W) bool.

    Args:
        shape: (H, W) of k-space. accel: R >= 1, ACS included. acs: central columns, all acquired.

    Raises:
        ValueError: accel < 1, an ACS wider than the image, or one that alone exceeds W / accel.
    """
    outside, count = _budget(shape, accel, acs)
    chosen = outside[torch.randperm(len(outside), generator=generator)[:count]]
    return columns(shape, acs, chosen)


def gaussian_mask(shape: Shape, accel: float, acs: int, generator: torch.Generator, *, width: float = 1 / 3) -> Tensor:
    """Draw random columns, the denser the nearer to zero frequency: (H, W) bool.

    Drawn one by one without replacement, with odds exp(-k^2 / 2), k = the distance from zero frequency over `width`
    times that of the outermost column. Arguments and errors as `random_mask`; also ValueError for width <= 0.
    """
    outside, count = _budget(shape, accel, acs)
    line = gaussian_odds(shape[1], width)[outside]
    chosen = outside[torch.multinomial(line, count, generator=generator)] if count else outside[:0]
    return columns(shape, acs, chosen)


def equispaced_mask(
    shape: Shape, accel: float, acs: int, generator: torch.Generator | None = None, *, offset: int | None = None
) -> Tensor:
    """Choose columns at equal distance (rounded) around `acs` central ones: (H, W) bool.

    The distance is counted over the columns outside the ACS and widened so that R includes the ACS exactly; for the
    undisturbed lattice that GRAPPA needs, take `regular_mask`. Arguments and errors as `random_mask`.

    Args:
        offset: the first acquired column, random by default.
    """
    outside, count = _budget(shape, accel, acs)
    distance = len(outside) / max(count, 1)
    start = _offset(distance, offset, generator)
    index = (start + torch.arange(count, dtype=torch.float64) * distance).floor().long()
    return columns(shape, acs, outside[index.clamp_max(len(outside) - 1)])


def regular_mask(
    shape: Shape, accel: float, acs: int, generator: torch.Generator | None = None, *, offset: int | None = None
) -> Tensor:
    """Choose every accel-th column from `offset` on and `acs` central ones, as scanners do for GRAPPA: (H, W) bool.

    The ACS comes on top: the true R is below `accel`, a whole number here. Arguments and errors as `equispaced_mask`.
    """
    check_pattern(shape, accel, acs)
    if accel != int(accel) or accel > shape[1]:
        raise ValueError(f"regular_mask: acceleration must be a whole number of at most {shape[1]}, got {accel}")
    return columns(shape, acs, torch.arange(_offset(accel, offset, generator), shape[1], int(accel)))


def partial_fourier(mask: Tensor, fraction: float, side: Side = "left") -> Tensor:
    """Return the mask without the columns beyond `fraction` of all: (H, W) bool; scanners use 5/8, 6/8 and 7/8.

    The columns at the end `side` are left out; zero frequency stays, and so does the mask as it was given.

    Raises:
        ValueError: a fraction outside [0.5, 1], another side, or a mask that is not (H, W).
    """
    if mask.ndim != 2 or not 0.5 <= fraction <= 1 or side not in ("left", "right"):
        raise ValueError(
            f"partial_fourier: needs a mask (H, W), a fraction from 0.5 to 1 and side 'left' or 'right', "
            f"got {tuple(mask.shape)}, {fraction}, {side!r}"
        )
    width = mask.shape[1]
    # Zero frequency, at width // 2, must be among them: from the right that takes one column more of an even number.
    kept = max(round(fraction * width), width // 2 + 1 if side == "right" else width - width // 2)
    out = torch.zeros_like(mask, dtype=torch.bool)
    part = slice(width - kept, width) if side == "left" else slice(0, kept)
    out[:, part] = mask[:, part] != 0
    return out


def check_pattern(shape: Shape, accel: float, acs: int) -> None:
    """Raise ValueError for a shape, an acceleration or an ACS that no pattern can have."""
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"mask: shape must be (H, W), got {tuple(shape)}")
    if not accel >= 1:
        raise ValueError(f"mask: acceleration must be >= 1, got {accel}")
    if not 0 <= acs <= shape[1]:
        raise ValueError(f"mask: acs must be between 0 and the {shape[1]} phase-encoding columns, got {acs}")


def gaussian_odds(size: int, width: float) -> Tensor:
    """Return exp(-k^2 / 2) along an axis (size,), float64; k: distance from zero frequency over width * size / 2."""
    if not width > 0:
        raise ValueError(f"mask: width must be > 0, got {width}")
    odds = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / (width * size / 2)).square())
    return odds.clamp_min(1e-30)  # so that a narrow Gaussian can still fill a large budget


def columns(shape: Shape, acs: int, chosen: Tensor) -> Tensor:
    """Return the mask (H, W) bool of the columns `chosen` and the ACS."""
    line = torch.zeros(shape[1], dtype=torch.bool)
    line[chosen] = True
    line[centre(shape[1], acs)] = True
    return line.expand(shape).clone()


def _budget(shape: Shape, accel: float, acs: int) -> tuple[Tensor, int]:
    """The columns outside the ACS and how many of them to acquire."""
    check_pattern(shape, accel, acs)
    total = max(1, round(shape[1] / accel))
    if total < acs:
        raise ValueError(f"mask: acs = {acs} alone exceeds the {total} columns of R = {accel}; take a smaller acs or R")
    index = torch.arange(shape[1])
    inner = centre(shape[1], acs)
    return index[(index < inner.start) | (index >= inner.stop)], total - acs


def _offset(distance: float, offset: int | None, generator: torch.Generator | None) -> int:
    """The offset given, or a random whole number below the distance."""
    if offset is None:
        if generator is None:
            raise ValueError("mask: give an offset or a generator to draw it")
        return int(torch.rand((), generator=generator, dtype=torch.float64) * distance)
    if not 0 <= offset < distance:
        raise ValueError(f"mask: offset must be from 0 to below the distance of {distance:g} columns, got {offset}")
    return offset
