"""Complex images from magnitudes: the phases that coils, the field and off-centre echoes give, and noise."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.simulate.mri import synthetic_phase


class Phases(BaseModel):
    """Random phases for magnitudes scaled to about 1; drawn anew for every image."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    smooth: tuple[float, float] = (0.3, 3.0)
    """deviation of the random smooth part (field, coils), radians: between these two, uniform in its logarithm"""
    points: tuple[int, int] = (3, 8)
    """points a side of the grid it is interpolated from: fewest and most, over the field of view"""
    echo: float = Field(6.0, ge=0)
    """largest shift of the echo from the centre of k-space, samples: a linear phase of so many turns"""
    shifted: float = Field(0.4, ge=0, le=1)
    """share of images with such a shift"""
    noise: float = Field(0.01, gt=0)
    """largest standard deviation of the noise added in training, sigma^2 = E|n|^2; the smallest is a tenth of it"""
    background: float = Field(0.03, ge=0)
    """where the mean magnitude around a pixel is below this, there is only noise, and its phase is random"""

    def __call__(self, x: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """Magnitudes (B, h, w), windows of slices of `side` x `side`, with phases; complex64."""
        return torch.stack([self._one(m, side, generator) for m in x])

    def _one(self, x: Tensor, side: int, generator: torch.Generator) -> Tensor:
        h, w = x.shape
        whole = max(side, h, w)
        top, left = (int(torch.randint(whole - n + 1, (), generator=generator)) for n in (h, w))
        phase = self.field(whole, generator)[top : top + h, left : left + w]
        # The magnitude of noise is Rayleigh's: with a phase uniform at every pixel it is complex Gaussian again.
        nothing = nn.functional.avg_pool2d(x[None], 7, 1, 3, count_include_pad=False)[0] < self.background
        return x * torch.where(nothing, turn(torch.rand(x.shape, generator=generator)), phase)

    def field(self, side: int, generator: torch.Generator) -> Tensor:
        """Unit-modulus phase (side, side) over a field of view: random constant, quadratic, smooth part, echo shift."""
        draw = torch.rand(6, generator=generator).tolist()
        low, high = (math.log(s) for s in self.smooth)
        points = self.points[0] + int(draw[0] * (self.points[1] - self.points[0] + 1))
        grid = torch.randn(1, 1, points, points, generator=generator)
        smooth = nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=True)[0, 0]
        turns = smooth * math.exp(low + (high - low) * draw[1]) / (2 * math.pi) + draw[2]
        if draw[3] < self.shifted:
            axis = torch.arange(side) / side
            turns = turns + self.echo * draw[4] * (
                math.cos(2 * math.pi * draw[5]) * axis[:, None] + math.sin(2 * math.pi * draw[5]) * axis
            )
        return synthetic_phase((side, side), generator) * turn(turns)

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x (B, h, w) complex with noise of a random level for every image."""
        level = self.noise * 10 ** -torch.rand(len(x), 1, 1, generator=generator)
        return x + level * torch.randn(x.shape, dtype=x.dtype, generator=generator)


def turn(turns: Tensor) -> Tensor:
    """exp(2 pi i turns)."""
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
