"""Is the score a gradient field? Only then is there a density whose score it is.

The score (D - z) / sigma^2 is a gradient if and only if the Jacobian of D is symmetric (Horvat and Pfister,
arXiv 2402.03845). Two probes: |J v - J^T v| over |J v| for random signs v, and the integral of the score around small
random triangles, which is 0 for a gradient, over the size of its three sides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.diagnose.base import Case, Finding, OnShare, batches, noisy
from medrecon.diagnose.derivatives import rademacher
from medrecon.diffusion.derivatives import denoise, jvp, vjp
from medrecon.models.denoiser import Denoiser

SUMMARY = "conservativity: asymmetry of the denoiser's Jacobian, and loop integrals of the score"
LEVELS = (0.06, 0.25, 1.0, 4.0, 16.0)
SIDE = 0.3
"""corners lie at z + SIDE sigma n"""
NODES = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))
"""Gauss-Legendre with three nodes on [0, 1]: exact for polynomials of degree 5"""


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    levels = case.levels(LEVELS)
    rows = []
    for i, sigma in enumerate(levels):
        skew = size = around = sides = 0.0
        for z0 in batches(case.few, on_progress, i / len(levels), 1 / len(levels)):
            z = noisy(z0, sigma, generator)
            difference, product = asymmetry(case.prior.denoiser, z, sigma, generator)
            loop, edges = loop_integral(case.prior.denoiser, z, sigma, generator)
            skew, size = skew + difference, size + product
            around, sides = around + float(loop.square().sum()), sides + float(edges.square().sum())
        rows.append({"sigma": sigma, "asymmetry": (skew / size) ** 0.5, "loop": (around / sides) ** 0.5})
    table = [(f"σ = {r['sigma']:g}", f"asymmetry {r['asymmetry']:.2g}, loop {r['loop']:.2g}") for r in rows]
    return Finding({"slices": len(case.few), "levels": rows}, table)


def asymmetry(denoiser: Denoiser, z: Tensor, sigma: float, generator: torch.Generator) -> tuple[float, float]:
    """Sums over the batch of |J v - J^T v|^2 and |J v|^2: on the mean squared Frobenius norms."""
    v = rademacher(z, generator)
    forward, (_, backward) = jvp(denoiser, z, sigma, v), vjp(denoiser, z, sigma, v)
    return float((forward - backward).double().square().sum()), float(forward.double().square().sum())


def loop_integral(denoiser: Denoiser, z: Tensor, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Integral of the score around one random triangle an item (B,), and the sum of its three sides' sizes (B,).

    -z / sigma^2 and a constant are gradients, whose loop integral is 0; they are left out, so that they do not make
    the sides look large.
    """
    constant = denoise_value(denoiser, z, sigma)
    corners = [noisy(z, SIDE * sigma, generator) for _ in range(3)]
    sides = []
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        side = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        for place, weight in NODES:
            value = denoise_value(denoiser, a + place * (b - a), sigma) - constant
            side += weight * (value.double() * (b - a).double()).flatten(1).sum(1) / sigma**2
        sides.append(side)
    stacked = torch.stack(sides)
    return stacked.sum(0), stacked.abs().sum(0)


@torch.no_grad()
def denoise_value(denoiser: Denoiser, z: Tensor, sigma: float) -> Tensor:
    return denoise(denoiser, z, sigma)
