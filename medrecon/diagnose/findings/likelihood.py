"""log p of held-out latents by the probability-flow ODE (Song et al., arXiv 2011.13456, section 4.3), in bits per
dimension.

The flow is dz/dsigma = (z - D(z, sigma)) / sigma, and log p falls along it by (n - tr J) dlog sigma. It runs from
sigma_min, where the latent gets that much noise, to sigma_max, where p is N(0, (1 + sigma_max^2) I). The Gaussian of
the training latents goes the same way, and beside it stands its closed form: their difference is the error of the
integration.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from medrecon.diagnose.base import Case, Finding, OnShare, batches, noisy
from medrecon.diagnose.derivatives import rademacher, trace
from medrecon.diagnose.stationary import Stationary, fitted
from medrecon.models.denoiser import Denoiser

SUMMARY = "likelihood of held-out latents by the probability-flow ODE, beside the Gaussian's"


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    denoiser, steps, n = case.prior.denoiser, case.settings.steps, case.few[0].numel()
    bits = -1 / (n * math.log(2))
    gaussian = fitted(case)
    found: dict[str, list[float]] = {"prior": [], "gaussian": [], "gaussian_by_ode": []}
    for z0 in batches(case.few, on_progress, 0.0, 1.0):
        z = noisy(z0, denoiser.sigma_min, generator)
        probe = rademacher(z, generator)
        found["prior"] += (bits * log_density(denoiser, z, steps, probe)).tolist()
        if gaussian is not None:
            found["gaussian"] += (bits * closed_form(gaussian[0], z)).tolist()
            found["gaussian_by_ode"] += (bits * log_density(gaussian[0], z, steps, probe)).tolist()
    mean: dict[str, float | None] = {k: sum(v) / len(v) if v else None for k, v in found.items()}
    values: dict[str, Any] = {
        "slices": len(case.few),
        "steps": steps,
        "sigma_min": denoiser.sigma_min,
        "bits_per_dimension": mean,
        "per_slice": found,
        "gaussian": gaussian[1] if gaussian else None,
    }
    table = [(f"prior, z + {denoiser.sigma_min:g} n", f"{mean['prior']:.3f} bits a dimension")]
    if gaussian is not None:
        text = f"{mean['gaussian']:.3f} in closed form, {mean['gaussian_by_ode']:.3f} by the same ODE"
        table.append(("Gaussian of the training latents", text))
    return Finding(values, table)


@torch.no_grad()
def closed_form(gaussian: Stationary, z: Tensor) -> Tensor:
    return gaussian.log_density(z, gaussian.sigma_min)


def log_density(denoiser: Denoiser, z: Tensor, steps: int, probe: Tensor) -> Tensor:
    """Natural logarithm of the density of z at sigma_min, (B,) float64: Heun's steps in sigma, levels log-uniform.

    At large sigma the slope in sigma is constant, so those steps are exact; in log sigma z would grow exponentially.
    """
    n, low, high = z[0].numel(), math.log(denoiser.sigma_min), math.log(denoiser.sigma_max)
    step = (high - low) / steps
    change = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for i in range(steps):
        here, there = math.exp(low + i * step), math.exp(low + (i + 1) * step)
        estimate, first = trace(denoiser, z, here, probe)
        slope = (z - estimate) / here
        euler = z + (there - here) * slope
        estimate, second = trace(denoiser, euler, there, probe)
        z = z + (there - here) / 2 * (slope + (euler - estimate) / there)
        change += step * (n - (first + second) / 2)
    variance = 1 + denoiser.sigma_max**2
    end = -0.5 * (z.double().square().flatten(1).sum(1) / variance + n * math.log(2 * math.pi * variance))
    return end + change
