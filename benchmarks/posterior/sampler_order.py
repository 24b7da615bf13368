"""Of which order each sampler is: its distance from the flow of an exact Gaussian, at more and more levels."""

from __future__ import annotations

import math

import torch
from oracle_solvers import SAMPLERS

from medrecon.diffusion.reverse import sample
from medrecon.diffusion.samplers.base import NamedSampler, sampler_named
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import smooth_gaussian

HIGH, LOW = 8.0, 0.05
LEVELS = (11, 21, 81, 161)


class Counted(Denoiser):
    """A denoiser, and how often it was called."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.calls = denoiser, 0
        self.sigma_min, self.sigma_max = denoiser.sigma_min, denoiser.sigma_max

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.denoiser(z, sigma)


def flow_error(sampler: NamedSampler, levels: int) -> tuple[float, int]:
    """Return |z - that of the exact flow| / |start| from sigma 8 to 0.05, and the denoiser calls."""
    g, prior = torch.Generator().manual_seed(3), smooth_gaussian((1, 5, 4))
    z, counted = HIGH * torch.randn(3, 1, 5, 4, dtype=torch.float64, generator=g), Counted(prior)
    end = sample(counted, sampler, z, log_uniform(levels, LOW, HIGH)[:-1], g)
    return float((end - prior.flow(z, HIGH, LOW)).norm() / z.norm()), counted.calls


def order_table() -> str:
    """Return the table of samplers that follow the flow, in Markdown."""
    rows = []
    for name, eta in SAMPLERS:
        sampler = sampler_named(name, eta)
        if sampler.stochastic:
            continue
        (e0, c0), (e1, c1), (coarse, _), (fine, _) = (flow_error(sampler, n) for n in LEVELS)
        order = math.log2(coarse / fine)
        rows.append(f"| {name} | {order:.2f} | {e0:.1e} | {c0} | {e1:.1e} | {c1} |")
    head = "| sampler | order | error, 10 steps | calls | error, 20 steps | calls |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])
