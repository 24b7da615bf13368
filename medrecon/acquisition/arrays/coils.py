"""What comes with k-space: the sensitivities of its coils and their noise."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from medrecon.acquisition.arrays.values import complex_numbers, numbers
from medrecon.coils.whitening import noise_covariance
from medrecon.core.noise import MRINoise
from medrecon.core.scan_ranges import check_noise

UNIT = 0.02
"""By how much the root sum of squares of maps may differ from 1."""


def coil_maps(maps: Any, stack: tuple[int, int, int, int], normalise: bool | None) -> Tensor:
    """Return maps (Z, C, H, W), complex64, of maps (C, H, W), one set for all slices, or (Z, C, H, W).

    Args:
        normalise: divide them by their root sum of squares; False: take them as they are, and the image in their units.

    Raises:
        ValueError: names the argument: another shape, NaN, 0 everywhere, or not of unit root sum of squares and nobody
            said what to do.
    """
    found = complex_numbers("maps", maps).to(torch.complex64)
    if tuple(found.shape) not in {stack[1:], stack, (stack[2:] if stack[1] == 1 else stack)}:
        raise ValueError(
            f"maps: expected (coil, row, column) = {stack[1:]}, or {stack} of every slice, got {tuple(found.shape)}"
        )
    found = found.reshape(-1, *stack[1:])
    if bad := int((~torch.view_as_real(found).isfinite()).any(-1).sum()):
        raise ValueError(f"maps: {bad} NaN or infinite values; set them to 0, where there is no object")
    power = found.abs().square().sum(1, keepdim=True).sqrt()
    inside = power[power > 0]
    if not len(inside):
        raise ValueError("maps: 0 everywhere")
    if normalise is None and float((inside - 1).abs().max()) > UNIT:
        span = f"{float(inside.min()):.3g} to {float(inside.max()):.3g}"
        raise ValueError(
            f"maps: their root sum of squares over the coils is {span}, not 1: normalise_maps=True divides them by it; "
            "normalise_maps=False keeps them, and the image is in their units"
        )
    if normalise:
        found = torch.where(power > 0, found / power.clamp_min(1e-30), 0)
    return found.expand(stack).clone()


def noise_of(noise: Any, samples: Any, scale: float, data: Tensor) -> MRINoise | None:
    """Return the noise of data (Z, C, ...), which were multiplied by `scale`.

    Args:
        noise: the standard deviation of a sample, E|n|^2 = noise^2 with real and imaginary part together, or the
            covariance (C, C) of the coils.
        samples: measured without an object, (C, S), with the same receivers and bandwidth.

    Raises:
        ValueError: names the argument: both, another shape, or more noise than there is signal.
    """
    coils = data.shape[1]
    if noise is not None and samples is not None:
        raise ValueError("noise, noise_samples: give one of them")
    if noise is None and samples is None:
        return None
    if samples is not None:
        measured = complex_numbers("noise_samples", samples)
        if measured.ndim != 2 or len(measured) != coils:
            raise ValueError(f"noise_samples: expected ({coils}, samples), as many coils, got {tuple(measured.shape)}")
        model = MRINoise(noise_covariance(measured))
    elif isinstance(noise, Real):
        model = MRINoise(float(noise))
    else:
        covariance = numbers("noise", noise).to(torch.complex128)
        if tuple(covariance.shape) != (coils, coils):
            raise ValueError(
                f"noise: expected a number, or a covariance ({coils}, {coils}), got {tuple(covariance.shape)}"
            )
        model = MRINoise(covariance)
    model = model.scaled(scale**2)
    check_noise(data, model)
    return model
