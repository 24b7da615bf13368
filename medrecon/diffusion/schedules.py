"""Noise schedules: falling noise levels, float64, ending in 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_uniform(steps: int, low: float, high: float) -> Tensor:
    """Return `steps` levels from high to low, uniform in log sigma (that is, in log-SNR), then 0."""
    _check("log_uniform", steps, low, high)
    levels = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64).exp()
    return torch.cat([levels, levels.new_zeros(1)])


def karras(steps: int, low: float, high: float, rho: float = 7.0) -> Tensor:
    """Return the levels of Karras et al. (arXiv 2206.00364, eq. 5), then 0.

    sigma_i = (high^(1/rho) + i/(n-1) (low^(1/rho) - high^(1/rho)))^rho.
    """
    _check("karras", steps, low, high)
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
    arXiv 2006.11239. With B(t) = 0.1 t + 9.95 t^2, the integral of beta, sigma^2 = e^B - 1.
    """
    _check("vp_uniform", steps, low, high)
    levels = _linear_beta(steps, *(math.log1p(s**2) for s in (low, high))).expm1().sqrt()
    return torch.cat([levels, levels.new_zeros(1)])


def sub_vp_uniform(steps: int, low: float, high: float) -> Tensor:
    """Return the same of the sub-variance-preserving process (arXiv 2011.13456, eq. 29): sigma = 2 sinh(B / 2).

    Its signal is that of the variance-preserving one, e^(-B/2), and its noise the square of that one's, 1 - e^-B.
    """
    _check("sub_vp_uniform", steps, low, high)
    levels = 2 * (_linear_beta(steps, *(2 * math.asinh(s / 2) for s in (low, high))) / 2).sinh()
    return torch.cat([levels, levels.new_zeros(1)])


def flow_uniform(steps: int, low: float, high: float) -> Tensor:
    """Return `steps` levels from high to low, uniform in the time t of rectified flow, sigma = t / (1 - t), then 0.

    Its states x_t = (1 - t) x0 + t n (arXiv 2209.03003) are (1 - t) z, and Euler's steps along its velocity are DDIM's.
    """
    _check("flow_uniform", steps, low, high)
    t = torch.linspace(high / (1 + high), low / (1 + low), steps, dtype=torch.float64)
    return torch.cat([t / (1 - t), t.new_zeros(1)])


def _linear_beta(steps: int, low: float, high: float) -> Tensor:
    """B(t) from high to low, at times spaced evenly."""
    first, half = 0.1, 9.95
    start, end = ((math.sqrt(first**2 + 4 * half * B) - first) / (2 * half) for B in (high, low))
    t = torch.linspace(start, end, steps, dtype=torch.float64)
    return first * t + half * t.square()


def _check(name: str, steps: int, low: float, high: float) -> None:
    if steps < 1 or not 0 < low <= high:
        raise ValueError(f"{name}: expected steps >= 1 and 0 < low <= high, got {steps}, {low}, {high}")
