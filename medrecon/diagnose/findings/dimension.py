"""How many dimensions do the latents have, as the denoiser sees them?

At small sigma the Jacobian of D is the projection on the tangent space of the data, so its trace is their dimension:
tr J = E|z0 - D|^2 / sigma^2 at noisy points is the MMSE dimension (Wu and Verdu, IEEE Trans. Inf. Theory 57 (2011)
4857). FLIPD (Kamkari et al., arXiv 2406.03537) evaluates n + d log p_sigma / d log sigma at clean points, which in
these units is tr J + |D - z0|^2 / sigma^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.diagnose.base import Case, Finding, OnShare, batches, noisy
from medrecon.diagnose.derivatives import rademacher, trace
from medrecon.models.denoiser import Denoiser

SUMMARY = "intrinsic dimension: trace of the denoiser's Jacobian at small noise, and FLIPD"
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5)


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    levels, n = case.levels(LEVELS), case.few[0].numel()
    rows = []
    for i, sigma in enumerate(levels):
        traces, local = [], []
        for z0 in batches(case.few, on_progress, i / len(levels), 1 / len(levels)):
            traces.append(mmse_dimension(case.prior.denoiser, z0, sigma, generator))
            local.append(flipd(case.prior.denoiser, z0, sigma, generator))
        rows.append({"sigma": sigma, "trace": float(torch.cat(traces).mean()), "flipd": float(torch.cat(local).mean())})
    table = [
        (
            f"σ = {r['sigma']:g}",
            f"trace {r['trace']:.0f}, FLIPD {r['flipd']:.0f} of {n} ({r['trace'] / n:.0%}, {r['flipd'] / n:.0%})",
        )
        for r in rows
    ]
    return Finding({"slices": len(case.few), "ambient": n, "levels": rows}, table)


def mmse_dimension(denoiser: Denoiser, z0: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """tr J at z0 + sigma n; (B,)."""
    z = noisy(z0, sigma, generator)
    return trace(denoiser, z, sigma, rademacher(z, generator))[1]


def flipd(denoiser: Denoiser, z0: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """tr J + |D - z0|^2 / sigma^2 at z0 itself; (B,)."""
    estimate, traced = trace(denoiser, z0, sigma, rademacher(z0, generator))
    return traced + (estimate - z0).double().square().flatten(1).sum(1) / sigma**2
