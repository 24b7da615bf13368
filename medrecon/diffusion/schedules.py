"""Noise schedules: falling noise levels, float64, ending in 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_uniform(steps: int, low: float, high: float) -> Tensor:
    """Return `steps` levels from high to low, uniform in log sigma (that is, in log-SNR), then 0."""
    if steps < 1 or not 0 < low <= high:
        raise ValueError(f"log_uniform: expected steps >= 1 and 0 < low <= high, got {steps}, {low}, {high}")
    levels = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64).exp()
    return torch.cat([levels, levels.new_zeros(1)])


def karras(steps: int, low: float, high: float, rho: float = 7.0) -> Tensor:
    """Return the levels of Karras et al. (arXiv 2206.00364, eq. 5), then 0.

    sigma_i = (high^(1/rho) + i/(n-1) (low^(1/rho) - high^(1/rho)))^rho.
    """
    if steps < 1 or not 0 < low <= high:
        raise ValueError(f"karras: expected steps >= 1 and 0 < low <= high, got {steps}, {low}, {high}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def discrete_vp(abar: Tensor, indices: Tensor) -> Tensor:
    """Return sigma = sqrt((1 - abar) / abar) at the given falling timesteps of a VP process, then 0."""
    levels = ((1 - abar[indices]) / abar[indices]).sqrt().double()
    return torch.cat([levels, levels.new_zeros(1)])


def vp_uniform(steps: int, low: float, high: float) -> Tensor:
    """Return `steps` levels from high to low, uniform in the time of the variance-preserving process, then 0.

    Its beta rises linearly from 0.1 to 20 (arXiv 2011.13456, eq. 32), the continuous form of the 1000 steps of
    arXiv 2006.11239: 1 + sigma^2 = exp(0.1 t + 9.95 t^2).
    """
    if steps < 1 or not 0 < low <= high:
        raise ValueError(f"vp_uniform: expected steps >= 1 and 0 < low <= high, got {steps}, {low}, {high}")
    first, half = 0.1, 9.95
    start, end = ((math.sqrt(first**2 + 4 * half * math.log1p(s**2)) - first) / (2 * half) for s in (high, low))
    t = torch.linspace(start, end, steps, dtype=torch.float64)
    levels = (first * t + half * t.square()).expm1().sqrt()
    return torch.cat([levels, levels.new_zeros(1)])


def flow_uniform(steps: int, low: float, high: float) -> Tensor:
    """Return `steps` levels from high to low, uniform in the time t of rectified flow, sigma = t / (1 - t), then 0.

    Its states x_t = (1 - t) x0 + t n (arXiv 2209.03003) are (1 - t) z, and Euler's steps along its velocity are DDIM's.
    """
    if steps < 1 or not 0 < low <= high:
        raise ValueError(f"flow_uniform: expected steps >= 1 and 0 < low <= high, got {steps}, {low}, {high}")
    t = torch.linspace(high / (1 + high), low / (1 + low), steps, dtype=torch.float64)
    return torch.cat([t / (1 - t), t.new_zeros(1)])
