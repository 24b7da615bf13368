"""Random crops of slices: mirrored, turned, zoomed, shifted and deformed, in one interpolation."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.training.images.slices import Slices


class Augment(BaseModel):
    """How training slices are varied; drawn anew for every crop."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    mirror: float = Field(0.5, ge=0, le=1)
    """share of crops mirrored left to right"""
    turns: float = Field(0.75, ge=0, le=1)
    """share of crops turned by 90, 180 or 270 degrees"""
    plain: float = Field(0.5, ge=0, le=1)
    """share of crops that are neither zoomed, rotated nor deformed: interpolation takes their noise away"""
    zoom: float = Field(1.33, ge=1)
    """largest magnification, and reduction, of the others"""
    rotate: float = Field(0.0, ge=0, le=180)
    """largest rotation of the others, degrees"""
    shift: float = Field(0.0, ge=0, lt=0.5)
    """largest shift of a crop beyond the slice, as a share of its side; the edge is repeated"""
    deform: float = Field(0.0, ge=0, le=0.08)
    """deviation of the random diffeomorphic deformation of the others, as a share of the crop's side"""
    scale_jitter: float = Field(0.0, ge=0, lt=1)
    """random intensity scaling by 1 +- this (MRI: units are arbitrary)"""


def crops(slices: Slices, size: int, count: int, augment: Augment, generator: torch.Generator) -> Tensor:
    """Random crops (count, size, size) in physical values; subjects weighted by the root of their slices.

    Complex, with phases and noise, where the slices have phases.
    """
    return numbered_crops(slices, size, count, augment, generator)[0]


def numbered_crops(
    slices: Slices, size: int, count: int, augment: Augment, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The same, and the number (count,) of the slice that each is of."""
    chosen = torch.multinomial(slices.weights, count, replacement=True, generator=generator)
    x = torch.stack([_crop(slices.values(int(i)), size, augment, generator) for i in chosen])
    if augment.scale_jitter:
        x = x * (1 + (torch.rand(count, 1, 1, generator=generator) * 2 - 1) * augment.scale_jitter)
    if slices.phases is not None:
        x = slices.phases.noisy(slices.phases(x, slices.data.shape[-1], generator), generator)
    return x, chosen


def _crop(x: Tensor, size: int, augment: Augment, generator: torch.Generator) -> Tensor:
    """One crop of a slice (H, W)."""
    draw = torch.rand(8, generator=generator).tolist()
    plain = draw[0] < augment.plain
    zoom = 1.0 if plain else augment.zoom ** (2 * draw[1] - 1)
    angle = 0.0 if plain else math.radians(augment.rotate) * (2 * draw[2] - 1)
    side = size / zoom  # of the source
    top, left = (_start(n, side, augment.shift, d) for n, d in zip(x.shape, draw[3:5], strict=True))
    if plain:
        rows, columns = (
            torch.arange(round(s), round(s) + size).clamp(0, n - 1) for s, n in zip((top, left), x.shape, strict=True)
        )
        crop = x[rows[:, None], columns]
    else:
        grid = _rotated(size, side, angle) + torch.tensor([top, left]) + side / 2 - 0.5
        if augment.deform:
            grid = grid + side * diffeomorphism(size, augment.deform, generator)
        crop = sampled(x, grid)
    if draw[5] < augment.mirror:
        crop = crop.flip(-1)
    return torch.rot90(crop, 1 + int(draw[7] * 3)) if draw[6] < augment.turns else crop


def _start(length: int, side: float, shift: float, draw: float) -> float:
    """First source row of a crop: uniform over the places inside the slice and `shift` beyond."""
    beyond = shift * side
    room = max(0.0, length - side)
    first = min(0.0, (length - side) / 2)  # a crop larger than the slice is centred on it
    return first - beyond + draw * (room + 2 * beyond)


def _rotated(size: int, side: float, angle: float) -> Tensor:
    """Source offsets (size, size, 2), row and column, of a square of `side` source pixels turned about its centre."""
    axis = ((torch.arange(size) + 0.5) / size - 0.5) * side
    r, c = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack([cos * r - sin * c, sin * r + cos * c], -1)


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    """x (H, W) at source places grid (h, w, 2), row and column in pixels; cubic, the edge repeated."""
    scale = torch.tensor([2 / n for n in x.shape])
    place = ((grid + 0.5) * scale - 1).flip(-1)
    low, high = x.amin(), x.amax()
    out = nn.functional.grid_sample(
        x[None, None], place[None].to(x), mode="bicubic", padding_mode="border", align_corners=False
    )
    return out[0, 0].clamp(low, high)


def diffeomorphism(size: int, deviation: float, generator: torch.Generator) -> Tensor:
    """A random invertible displacement (size, size, 2) in units of the side, of that root-mean-square length.

    Random velocities on grids of 4, 8 and 16 points, each a quarter as strong as the one before, are summed and
    integrated by scaling and squaring: the deformations of DRDM (arXiv 2407.07295) without its network.
    """
    fine = 32
    velocity = torch.zeros(1, 2, fine, fine)
    for level, points in enumerate((4, 8, 16)):
        noise = torch.randn(1, 2, points, points, generator=generator) / 4**level
        velocity += nn.functional.interpolate(noise, (fine, fine), mode="bicubic", align_corners=True)
    velocity *= deviation / velocity.square().sum(1).mean().sqrt()
    flow = velocity / 2**6
    axis = torch.linspace(-1, 1, fine)
    columns, rows = torch.meshgrid(axis, axis, indexing="xy")
    for _ in range(6):
        place = torch.stack([columns + 2 * flow[0, 1], rows + 2 * flow[0, 0]], -1)[None]
        flow = flow + nn.functional.grid_sample(flow, place, padding_mode="border", align_corners=True)
    return nn.functional.interpolate(flow, (size, size), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
