"""Squared error of the denoiser on held-out subjects, beside the Gaussian and a mixture of Gaussians of its training
latents, and its calibration.

Tweedie's second-order formula: if D is the posterior mean, the posterior covariance is sigma^2 dD/dz. So on data that
obey the prior, E|D - z0|^2 = sigma^2 tr J (Meng et al., arXiv 2111.04726).
"""

from __future__ import annotations

import torch

from medrecon.diagnose.base import Case, Finding, OnShare, batches, noisy
from medrecon.diagnose.derivatives import rademacher, trace
from medrecon.diagnose.stationary import fitted, fitted_mixture
from medrecon.models.denoiser import Denoiser
from medrecon.training.diffusion import LEVELS

SUMMARY = "denoising error per noise level on held-out slices, beside a Gaussian's and a mixture's, and its calibration"


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    gaussian, mixture, levels = fitted(case), fitted_mixture(case), case.levels(LEVELS)
    rivals: dict[str, Denoiser] = {"gaussian": gaussian[0]} if gaussian else {}
    if mixture is not None:
        rivals["mixture"] = mixture
    rows = []
    for i, sigma in enumerate(levels):
        ours = expected = 0.0
        theirs = dict.fromkeys(rivals, 0.0)
        for z0 in batches(case.few, on_progress, i / len(levels), 1 / len(levels)):
            z = noisy(z0, sigma, generator)
            estimate, traced = trace(case.prior.denoiser, z, sigma, rademacher(z, generator))
            ours += float((estimate - z0).double().square().sum())
            expected += sigma**2 * float(traced.sum())
            for name, rival in rivals.items():
                with torch.no_grad():
                    theirs[name] += float((rival(z, torch.tensor(sigma)) - z0).double().square().sum())
        count = case.few.numel()
        row: dict[str, float | None] = {
            "sigma": sigma,
            "mse": ours / count,
            "gaussian_mse": None,
            "ratio": None,
            "mixture_mse": None,
            "mixture_ratio": None,
            "expected_mse": expected / count,
            "calibration": ours / expected if expected > 0 else None,
        }
        if "gaussian" in theirs:
            row |= {"gaussian_mse": theirs["gaussian"] / count, "ratio": ours / theirs["gaussian"]}
        if "mixture" in theirs:
            row |= {"mixture_mse": theirs["mixture"] / count, "mixture_ratio": ours / theirs["mixture"]}
        rows.append(row)
    values = {
        "slices": len(case.few),
        "gaussian": gaussian[1] if gaussian else None,
        "mixture_components": len(mixture.weights) if mixture else None,
        "levels": rows,
    }
    return Finding(values, [(f"σ = {row['sigma']:g}", words(row)) for row in rows])


def words(row: dict[str, float | None]) -> str:
    text = f"MSE {row['mse']:.3g}"
    if row["ratio"] is not None:
        text += f", {row['ratio']:.2f} of the Gaussian's"
    if row["mixture_ratio"] is not None:
        text += f", {row['mixture_ratio']:.2f} of the mixture's"
    if row["calibration"] is not None:
        text += f", {row['calibration']:.2f} of what it expects"
    return text
