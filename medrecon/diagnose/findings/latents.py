"""Statistics of the latents: a diffusion model expects zero mean, unit variance and no far outliers."""

from __future__ import annotations

from typing import Any

import torch

from medrecon.diagnose.base import Case, Finding, OnShare
from medrecon.diagnose.radial import radial_power, rings

SUMMARY = "latents: mean, deviation and kurtosis per channel, correlations, spectrum, outliers"
FAR = 6.0
"""an outlier lies further than this many standard deviations of its channel; a normal law has 2e-9 of them"""


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    channels = case.latents.double().transpose(0, 1).flatten(1).cpu()  # (C, N h w)
    mean, std = channels.mean(1), channels.std(1)
    normal = (channels - mean[:, None]) / std[:, None].clamp_min(1e-12)
    kurtosis = normal.pow(4).mean(1) - 3
    correlation = normal @ normal.T / normal.shape[1]
    crossed = (correlation - torch.diag(correlation.diag())).abs()
    values: dict[str, Any] = {
        "mean": mean.tolist(),
        "std": std.tolist(),
        "excess_kurtosis": kurtosis.tolist(),
        "correlation": correlation.tolist(),
        "largest_cross_correlation": float(crossed.max()),
        "radial_power": radial_power(case.latents, rings(case.latents)).tolist(),
        "largest_deviation": float(normal.abs().max()),
        "share_beyond_6": float((normal.abs() > FAR).double().mean()),
        "largest_slice": case.index[int(case.latents.abs().flatten(1).amax(1).argmax())],
    }
    table = [
        ("mean per channel", f"{float(mean.min()):+.2f} .. {float(mean.max()):+.2f}"),
        ("deviation per channel", f"{float(std.min()):.2f} .. {float(std.max()):.2f}"),
        ("excess kurtosis", f"{float(kurtosis.min()):.1f} .. {float(kurtosis.max()):.1f}"),
        ("largest cross-correlation", f"{values['largest_cross_correlation']:.2f}"),
        ("power, lowest to highest ring", f"{values['radial_power'][0]:.2g} .. {values['radial_power'][-1]:.2g}"),
        ("outliers beyond 6 deviations", f"{values['share_beyond_6']:.1e}, furthest {values['largest_deviation']:.1f}"),
    ]
    return Finding(values, table)
