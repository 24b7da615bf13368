"""Ramp sampling: readouts that start and end on the ramps of the gradient, resampled on an even grid of frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.numerics.fourier import centred_fft

MARGIN = 0.9
"""Share of the field of view that the largest gap between frequencies allows, so that the fit is well conditioned."""


@dataclass(frozen=True)
class Trapezoid:
    """A trapezoidal readout gradient and when it is sampled, all in one unit of time (us in file headers).

    Attributes:
        ramp_up, flat_top, ramp_down: durations. delay: from the start of the ramp to the first sample's interval.
        duration: of the sampling.

    Raises:
        ValueError: times that are not possible.
    """

    ramp_up: float
    flat_top: float
    ramp_down: float
    delay: float
    duration: float

    def __post_init__(self) -> None:
        times = (self.ramp_up, self.flat_top, self.ramp_down, self.delay)
        end = self.ramp_up + self.flat_top + self.ramp_down
        if not all(0 <= t < math.inf for t in times) or not 0 < self.duration <= (end - self.delay) * (1 + 1e-6):
            raise ValueError(f"readout gradient: impossible times, {self}")

    def frequencies(self, samples: int, count: int) -> Tensor:
        """(samples,) frequencies at the middle of each sample, float64; the sampling spans `count`, 0 at its middle."""
        edges = self.delay + self.duration * torch.arange(2 * samples + 1, dtype=torch.float64) / (2 * samples)
        moment = self._moment(edges)
        return (moment[1::2] - moment[samples]) * count / (moment[-1] - moment[0])

    def _moment(self, t: Tensor) -> Tensor:
        """Integral of the gradient, 1 on the flat top, from 0 to t."""
        up, flat, down = self.ramp_up, self.flat_top, self.ramp_down
        rising = t.clamp(0, up).square() / (2 * up) if up else torch.zeros_like(t)
        late = (t - up - flat).clamp(0, down)
        falling = late - late.square() / (2 * down) if down else torch.zeros_like(t)
        return rising + (t - up).clamp(0, flat) + falling


def regridding(frequencies: Tensor, count: int) -> Tensor:
    """(count, S) complex128: lines at uneven frequencies (S,) -> centred orthonormal k-space of `count` even ones.

    A weighted least-squares fit of the image along the line, on as many pixels about its centre as the widest gap of
    the frequencies supports (Groechenig, Math. Comp. 59:181, 1992), so exact for an object within those.

    Args:
        frequencies: increasing, in cycles per field of view of `count` pixels, within plus and minus count / 2.

    Raises:
        ValueError: not increasing, or beyond that.
    """
    k = frequencies.double()
    gaps = k.diff()
    if k.ndim != 1 or len(k) < 2 or not bool((gaps > 0).all()) or float(k.abs().max()) > count / 2:
        raise ValueError(f"regridding: expected increasing frequencies within {count / 2}, got {k.tolist()[:3]} ...")
    pixels = max(1, min(count, len(k), math.floor(MARGIN * count / float(gaps.max()))))
    if float(gaps.max() - gaps.min()) < 1e-9 * float(gaps.max()):
        pixels = min(count, len(k))  # even already: nothing is lost
    start = count // 2 - pixels // 2
    x = torch.arange(start, start + pixels, dtype=torch.float64) - count // 2
    waves = torch.polar(torch.ones(len(k), pixels, dtype=torch.float64), -2 * math.pi / count * k[:, None] * x)
    padded = torch.cat([gaps[:1], gaps, gaps[-1:]])
    root = ((padded[1:] + padded[:-1]) / 2).sqrt()[:, None]
    fit = torch.linalg.pinv(root * waves / math.sqrt(count)) * root.mT  # (pixels, S)
    image = torch.zeros(count, len(k), dtype=torch.complex128)
    image[start : start + pixels] = fit
    return centred_fft(image, 0)
