"""The ramp filter of filtered backprojection, on a flat or equiangular row of rays, with its windows."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Window = Literal["ramp", "shepp-logan", "cosine", "hann"]


def ramp_filter(rays: Tensor, spacing: float, window: Window = "ramp", angle: float = 0.0) -> Tensor:
    """Convolve (..., D) with the band-limited ramp, padded so that nothing wraps; the result is in 1/mm.

    Args:
        spacing: of the rays at the rotation centre [mm].
        angle: between two rays of an arc detector [rad], 0 for parallel rays and flat detectors. Kak & Slaney,
            Principles of Computerized Tomographic Imaging, eq. 3.61 (flat: the ramp) and 3.93 (arc: the ramp times
            (gamma / sin gamma)^2).

    Raises:
        ValueError: an unknown window.
    """
    count = rays.shape[-1]
    size = 1 << max(2 * count - 1, 2).bit_length()
    taps = np.arange(size)
    taps = np.where(taps <= size // 2, taps, taps - size)  # integers: fftfreq(n, 1/n) is not exactly integer
    kernel = np.zeros(size)
    odd = taps % 2 == 1
    kernel[odd] = -1 / (math.pi * taps[odd]) ** 2
    kernel[0] = 0.25
    if angle:
        near = abs(taps) < count  # no two rays lie farther apart, and the angle stays below pi
        kernel = np.where(near, kernel / np.sinc(np.where(near, taps, 0) * angle / math.pi) ** 2, 0.0)
    response = np.fft.rfft(kernel).real / spacing * apodisation(np.arange(size // 2 + 1) / size, window)
    spectrum = torch.fft.rfft(rays, size) * torch.from_numpy(response).to(rays)
    return torch.fft.irfft(spectrum, size)[..., :count]


def apodisation(frequency: NDArray[np.float64], window: str) -> NDArray[np.float64]:
    """Return the window over frequencies of 0..1/2 per detector element."""
    if window == "ramp":
        return np.ones_like(frequency)
    if window == "shepp-logan":
        return np.sinc(frequency)
    if window == "cosine":
        return np.cos(math.pi * frequency)
    if window == "hann":
        return np.cos(math.pi * frequency) ** 2
    raise ValueError(f"fbp: window must be 'ramp', 'shepp-logan', 'cosine' or 'hann', got {window!r}")
