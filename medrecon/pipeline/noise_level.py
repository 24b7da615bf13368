"""The noise of a scan: what its file says, or else an estimate from the data alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from medrecon.core.noise import CTNoise, MRINoise
from medrecon.numerics.linalg import expand

MAD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


def ct_noise(noise: Mapping[str, Any], rank: int = 3) -> CTNoise:
    """The noise model of a measurement file: its i0 (), (V,), (Z, V) or of the data's rank, made to broadcast to them.

    Args:
        rank: of the data: 3 for (Z, V, D), 4 for (1, V, R, D).

    Raises:
        ValueError: no i0, or values that make no sense.
    """
    if "i0" not in noise:
        raise ValueError("this scan does not say how many photons it was made with: give noise/i0")
    known = {f.name: float(noise[f.name]) for f in fields(CTNoise) if f.name in noise and f.name != "i0"}
    i0 = torch.as_tensor(noise["i0"], dtype=torch.float64)
    return CTNoise(expand(i0, rank - 2) if i0.ndim in (1, 2) else i0, **known)


def ct_precision(p: Tensor, noise: Mapping[str, Any]) -> Tensor:
    """1 / variance of line integrals (B, V, D) or (B, V, R, D), model error included.

    With i0 the counting statistics; without, white noise whose level is read off second differences along the
    detector, in which the object hardly shows.
    """
    if "i0" in noise:
        return ct_noise(noise, p.ndim).precision(p)
    known = {f.name: float(noise[f.name]) for f in fields(CTNoise) if f.name in noise}
    second = p[..., 2:] - 2 * p[..., 1:-1] + p[..., :-2]
    sigma = MAD * second.abs().flatten(1).median(1).values / math.sqrt(6)
    default = CTNoise(1.0, **{k: v for k, v in known.items() if k.startswith("model")})
    model = default.model_absolute + default.model_relative * p.abs()
    return 1 / (expand(sigma, p.ndim - 1).square() + model.square())


def mri_noise(kspace: Tensor, radius: Tensor, noise: Mapping[str, Any]) -> MRINoise:
    """Noise of k-space (Z, C, *item): the file's covariance or sigma; without, the level of its outer samples, the
    tenth farthest from the middle by `radius` (*item), which is negative where nothing was measured.

    The estimate is their median magnitude over sqrt(ln 2), the median of a Rayleigh distribution with E|n|^2 = 1;
    object signal there makes it an upper bound.
    """
    if "covariance" in noise:
        return MRINoise(torch.as_tensor(noise["covariance"]))
    if "sigma" in noise:
        return MRINoise(float(noise["sigma"]))
    measured = radius[radius >= 0]
    far = radius >= measured.sort().values[int(0.9 * (measured.numel() - 1))]
    sigma = float(kspace[..., far].abs().median()) / math.sqrt(math.log(2))
    if not sigma > 0:
        raise ValueError("the outer k-space of this scan is 0, its noise cannot be estimated: give noise/sigma")
    return MRINoise(sigma)
