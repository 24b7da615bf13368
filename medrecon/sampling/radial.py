"""k-space trajectories in cycles per field of view, order (row, column): radial, golden angle, stack of stars.

Pixels are square: a field of view of H x W pixels resolves |k_row| <= H / 2, |k_column| <= W / 2, and a spoke at angle
theta runs along (H sin theta, W cos theta). Samples of one spoke are neighbours; spokes follow one another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
"""111.246 degrees, pi over the golden ratio: of full spokes, which repeat after pi (Winkelmann et al., IEEE TMI 26
(2007) 68). Centre-out half spokes take 2 pi (1 - 1 / tau), 137.51 degrees, instead."""


def golden_angles(spokes: int, *, tiny: int = 1, start: float = 0.0) -> Tensor:
    """Return angles (spokes,) float64 rad, each larger by pi / (tau + tiny - 1), tau the golden ratio; not modulo pi.

    Args:
        tiny: 1 is the golden angle, 111.25 degrees; 7 the usual tiny one, 23.63, which spares eddy currents (Wundrak
            et al., IEEE TMI 34 (2015) 1262, eq. 3).

    Raises:
        ValueError: no spoke, or tiny < 1.
    """
    if spokes < 1 or tiny < 1:
        raise ValueError(f"golden_angles: at least one spoke and tiny >= 1, got {spokes} spokes, tiny {tiny}")
    tau = (1 + math.sqrt(5)) / 2
    return start + math.pi / (tau + tiny - 1) * torch.arange(spokes, dtype=torch.float64)


def uniform_angles(spokes: int, *, start: float = 0.0) -> Tensor:
    """Return angles (spokes,) float64 rad, pi / spokes apart: full spokes that cover k-space evenly."""
    if spokes < 1:
        raise ValueError(f"uniform_angles: at least one spoke, got {spokes}")
    return start + math.pi / spokes * torch.arange(spokes, dtype=torch.float64)


def radial(angles: Tensor, samples: int, shape: tuple[int, int]) -> Tensor:
    """Return full spokes through the centre, (spokes * samples, 2) float64.

    Sample j lies at (j - samples // 2) / samples of a spoke's length of N: the centre is always measured, and the last
    sample of an even number is one step before the edge, as a scanner's readout has it.

    Args:
        angles: (spokes,) rad. samples: of a spoke; 2 N is usual (oversampled readout). shape: (H, W).

    Raises:
        ValueError: no angle, fewer than 2 samples, or angles that are not finite.
    """
    if angles.ndim != 1 or not len(angles) or not bool(torch.isfinite(angles).all()):
        raise ValueError(f"radial: angles are finite and (spokes,), got {tuple(angles.shape)}")
    if samples < 2:
        raise ValueError(f"radial: a spoke has at least 2 samples, got {samples}")
    rho = readout(samples)
    theta = angles.to("cpu", torch.float64)
    rows, columns = (n * torch.outer(along, rho) for n, along in zip(shape, (theta.sin(), theta.cos()), strict=True))
    return torch.stack([rows, columns], -1).flatten(0, 1)


def readout(samples: int) -> Tensor:
    """Return places of the samples of a spoke, (samples,), in lengths of the spoke: -1/2 to 1/2."""
    return (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples


def stack_of_stars(angles: Tensor, samples: int, shape: tuple[int, int, int]) -> Tensor:
    """Repeat the spokes in every Cartesian partition, (D * spokes * samples, 3) float64: (partition, row, column).

    Args:
        shape: (D, H, W); D partitions, zero frequency at D // 2.
    """
    star = radial(angles, samples, shape[1:])
    partition = torch.arange(shape[0], dtype=torch.float64) - shape[0] // 2
    return torch.cat([partition.repeat_interleave(len(star))[:, None], star.repeat(shape[0], 1)], 1)
