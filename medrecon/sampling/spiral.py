"""Archimedean spirals within the gradient system's limits, found by itself in time-optimal steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GAMMA = 42.577478518e6
"""Of the proton, Hz / T (CODATA 2018)."""
SUBSTEPS = 8


@dataclass(frozen=True, eq=False)
class Spiral:
    """Interleaves one after the other, each from the centre outwards.

    Attributes:
        trajectory: (interleaves * samples, 2) float64, cycles per field of view (row, column).
        times: (interleaves * samples,) float64, seconds since the start of the readout.
        density: (interleaves * samples,) float64, the area of k-space of each sample.
        samples: of one interleaf.
    """

    trajectory: Tensor
    times: Tensor
    density: Tensor
    samples: int


def spiral(
    shape: tuple[int, int],
    fov: float,
    interleaves: int,
    *,
    dwell: float = 2e-6,
    max_gradient: float = 40.0,
    max_slew: float = 150.0,
    undersampling: float = 1.0,
) -> Spiral:
    """Return interleaved spirals, 1 / fov apart and as fast as gradient and slew rate allow: k = A theta exp(i theta).

    On the curve |k'|^2 = A^2 theta'^2 (1 + theta^2) and |k''|^2 = A^2 [(1 + theta^2) theta''^2 + 2 theta theta'^2
    theta'' + (4 + theta^2) theta'^4] (after Glover, MRM 42 (1999) 412): theta'' is the largest within the slew rate,
    until the gradient is at its limit. Turns flatten outwards: what is fastest now never asks too much later.

    Args:
        shape: (H, W) of square pixels.
        fov: mm, of the longer side.
        interleaves: number of spirals, turned by 2 pi / interleaves.
        dwell: seconds between samples.
        max_gradient: mT/m. max_slew: T/m/s.
        undersampling: factor between the turns' distance and 1 / fov.

    Raises:
        ValueError: a limit, length or number that is not positive.
    """
    given = {
        "fov": fov,
        "interleaves": interleaves,
        "dwell": dwell,
        "max_gradient": max_gradient,
        "max_slew": max_slew,
        "undersampling": undersampling,
    }
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise ValueError(f"spiral: {name} must be positive, got {value}")
    pixel = fov / max(shape)
    a = interleaves * undersampling / (2 * math.pi * fov)
    # GAMMA times T/mm: the speed in cycles / mm / s.
    theta = _angles(a, 0.5 / pixel / a, dwell, GAMMA * 1e-6 * max_gradient, GAMMA * 1e-3 * max_slew)
    turn = 2 * math.pi / interleaves * torch.arange(interleaves, dtype=torch.float64)
    phi = turn[:, None] + theta
    k = torch.stack([n * pixel * a * theta * trig for n, trig in zip(shape, (phi.sin(), phi.cos()), strict=True)], -1)
    # A turn's neighbours are 2 pi A / interleaves away; borders lie half-way between samples.
    borders = torch.cat([theta[:1], (theta[1:] + theta[:-1]) / 2, theta[-1:]])
    area = math.pi * a**2 / interleaves * borders.square().diff() * math.prod(shape) * pixel**2
    times = dwell * torch.arange(len(theta), dtype=torch.float64)
    return Spiral(k.flatten(0, 1), times.repeat(interleaves), area.repeat(interleaves), len(theta))


def _angles(a: float, end: float, dwell: float, speed: float, acceleration: float) -> Tensor:
    """theta at each sample, from rest at 0 up to `end`, by the midpoint rule."""
    theta, rate, step, found = 0.0, 0.0, dwell / SUBSTEPS, [0.0]
    while True:
        for _ in range(SUBSTEPS):
            middle = theta + rate * step / 2
            half = _limited(rate + _fastest(theta, rate, acceleration / a) * step / 2, middle, speed / a)
            theta += half * step
            rate = _limited(rate + _fastest(middle, half, acceleration / a) * step, theta, speed / a)
        if theta > end:
            return torch.tensor(found, dtype=torch.float64)
        found.append(theta)


def _fastest(theta: float, rate: float, limit: float) -> float:
    """The largest theta'' with |k''| / A <= limit."""
    square = 1 + theta**2
    inside = (theta * rate**2) ** 2 - square * ((4 + theta**2) * rate**4 - limit**2)
    return (math.sqrt(max(inside, 0.0)) - theta * rate**2) / square


def _limited(rate: float, theta: float, limit: float) -> float:
    """theta' within |k'| / A <= limit."""
    return min(rate, limit / math.sqrt(1 + theta**2))
