"""Pixel-driven filtered backprojection: parallel rays; fan-flat full, short or limited scans (Kak & Slaney, ch. 3)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators.ct_geometry import FanGeometry, Geometry, ImageGrid

Window = Literal["ramp", "shepp-logan", "cosine", "hann"]


def fbp(sinogram: Tensor, geometry: Geometry, grid: ImageGrid, window: Window = "ramp") -> Tensor:
    """Line integrals (..., V, D) -> attenuation (..., H, W) [1/mm], on the sinogram's device; differentiable.

    Any arc and any spacing of views: each view counts for its share of the arc, and rays that were measured twice
    share their weight (Parker 1982 for fan beams). Where the arc covers 180 degrees (fan: 180 degrees and the fan
    angle) the values are right in HU. A shorter arc gives what the measured directions alone say: directions that
    were not seen count as zero, so structures along them are missing and the values too low.

    Args:
        window: apodisation of the ramp up to the detector's Nyquist frequency.

    Raises:
        ValueError: a sinogram of another shape than the geometry says, or an unknown window.
    """
    item = (len(geometry.angles), geometry.det_count)
    if tuple(sinogram.shape[-2:]) != item:
        raise ValueError(f"fbp: the geometry has (views, detectors) = {item}, the sinogram {tuple(sinogram.shape)}")
    work = sinogram.dtype if sinogram.dtype in (torch.float32, torch.float64) else torch.float32
    rays = sinogram.reshape(-1, *item).to(work)
    rays = rays * torch.from_numpy(ray_weights(geometry)).to(rays)
    image = _backproject(_filter(rays, geometry.iso_spacing, window), geometry, grid)
    return image.reshape(*sinogram.shape[:-2], *grid.shape).to(sinogram.dtype)


def ray_weights(geometry: Geometry) -> NDArray[np.float64]:
    """(V, D) weight of each ray before the filter [rad]: share of the arc, redundancy, and the fan's obliquity."""
    angles = np.asarray(geometry.angles)
    if not isinstance(geometry, FanGeometry):  # a ray and its reverse are one: period pi
        return np.repeat(angular_weights(angles, math.pi)[0][:, None], geometry.det_count, axis=1)
    share, start, arc = angular_weights(angles, 2 * math.pi)
    gamma = np.arctan(_ray_positions(geometry) / geometry.source_origin)
    if arc >= 2 * math.pi:
        redundancy = np.full((len(angles), len(gamma)), 0.5)
    else:
        redundancy = parker_weights(np.mod(angles - start, 2 * math.pi), gamma, arc)
    return share[:, None] * redundancy * np.cos(gamma)


def angular_weights(angles: NDArray[np.float64], period: float) -> tuple[NDArray[np.float64], float, float]:
    """Trapezoid weights of angles on a circle of `period`, with the start and the length of the covered arc.

    A gap over four times the median and over 10 degrees was not measured: its two neighbours get half a median
    step there, and the arc starts behind it. Repeated angles share their weight.
    """
    turned = np.mod(angles, period)
    order = np.argsort(turned, kind="stable")
    gaps = np.diff(turned[order], append=turned[order[0]] + period)  # gap i lies behind sorted view i
    real = gaps[gaps > 1e-9]
    step = float(np.median(real))
    missing = gaps > max(4 * step, math.radians(10))
    if len(real) < 2 or not missing.any():
        start, arc = float(turned[order[0]]) - step / 2, period
    else:
        widest = int(np.argmax(gaps))
        arc = period - float(gaps[widest]) + step
        start = float(turned[order[(widest + 1) % len(order)]]) - step / 2
    gaps = np.where(missing & (len(real) > 1), step, gaps)
    weights = np.empty_like(gaps)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights, start, arc


def parker_weights(beta: NDArray[np.float64], gamma: NDArray[np.float64], arc: float) -> NDArray[np.float64]:
    """(V, D) smooth weights of a fan scan over `arc` < 2 pi; the two measurements of one line add up to 1.

    beta (V,) is the source angle from the start of the arc, gamma (D,) the angle of a ray, positive towards the
    detector axis; the ray (beta, gamma) is also (beta + pi - 2 gamma, -gamma). Parker, Med. Phys. 9:254 (1982),
    with the half fan angle replaced by (arc - pi)/2, so that all of the arc is used. On an arc too short for
    the fan, rays without partner keep weight 1.
    """
    slack = (arc - math.pi) / 2
    b, g = beta[:, None], gamma[None, :]
    rise, fall = slack + g, slack - g  # half widths of the doubly measured ranges at both ends of the arc
    tiny = 1e-12
    first = np.where(b < 2 * rise, np.sin(math.pi / 4 * b / np.maximum(rise, tiny)) ** 2, 1.0)
    left = arc - b
    last = np.where(left < 2 * fall, np.sin(math.pi / 4 * left / np.maximum(fall, tiny)) ** 2, 1.0)
    return np.asarray(np.minimum(first, last))


def _ray_positions(geometry: Geometry) -> NDArray[np.float64]:
    """(D,) signed distances along the detector axis, scaled to the rotation centre [mm]."""
    return geometry.positions() * (geometry.iso_spacing / geometry.det_spacing)


def _filter(rays: Tensor, spacing: float, window: Window) -> Tensor:
    """Convolve (B, V, D) with the band-limited ramp [1/mm], padded so that nothing wraps."""
    count = rays.shape[-1]
    size = 1 << max(2 * count - 1, 2).bit_length()
    taps = np.arange(size)
    taps = np.where(taps <= size // 2, taps, taps - size)  # integers: fftfreq(n, 1/n) is not exactly integer
    kernel = np.zeros(size)
    odd = taps % 2 == 1
    kernel[odd] = -1 / (math.pi * taps[odd]) ** 2
    kernel[0] = 0.25
    response = np.fft.rfft(kernel).real / spacing * _window(np.arange(size // 2 + 1) / size, window)
    spectrum = torch.fft.rfft(rays, size) * torch.from_numpy(response).to(rays)
    return torch.fft.irfft(spectrum, size)[..., :count]


def _window(frequency: NDArray[np.float64], window: str) -> NDArray[np.float64]:
    """Apodisation over frequencies of 0..1/2 per detector element."""
    if window == "ramp":
        return np.ones_like(frequency)
    if window == "shepp-logan":
        return np.sinc(frequency)
    if window == "cosine":
        return np.cos(math.pi * frequency)
    if window == "hann":
        return np.cos(math.pi * frequency) ** 2
    raise ValueError(f"fbp: window must be 'ramp', 'shepp-logan', 'cosine' or 'hann', got {window!r}")


def _backproject(rays: Tensor, geometry: Geometry, grid: ImageGrid) -> Tensor:
    """Sum over views of the filtered rays (B, V, D), interpolated where each pixel projects -> (B, H, W).

    One view at a time: memory is that of a few images whatever the number of views.
    """
    x, y = (torch.from_numpy(a).to(rays.device) for a in grid.coordinates())
    first, spacing = float(_ray_positions(geometry)[0]), geometry.iso_spacing
    # Detector index first, so that one gather serves the whole batch; zeros beyond both ends of the detector.
    padded = torch.nn.functional.pad(rays.permute(1, 2, 0), (0, 0, 1, 1))
    image = rays.new_zeros(math.prod(grid.shape), rays.shape[0])
    for view, angle in zip(padded, geometry.angles, strict=True):
        c, s = math.cos(angle), math.sin(angle)
        across = x[None, :] * c + y[:, None] * s
        scale = None
        if isinstance(geometry, FanGeometry):
            scale = geometry.source_origin / (geometry.source_origin - x[None, :] * s + y[:, None] * c)
            across = across * scale
        position = ((across - first) / spacing + 1).clamp_(0, geometry.det_count + 1).flatten()
        low = position.floor().clamp_(max=geometry.det_count)
        index, part = low.long(), (position - low).to(rays.dtype)[:, None]
        value = torch.lerp(view[index], view[index + 1], part)
        image += value if scale is None else value * scale.square().to(rays.dtype).reshape(-1, 1)
    return image.T.reshape(rays.shape[0], *grid.shape)
