"""DDS: decomposed diffusion sampling (arXiv 2303.05754), in the latent space of an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.latent import LatentSpace, pixel_error, start_latent, warm_start
from medrecon.diffusion.samplers.ddim import ddim_update
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver


@dataclass(frozen=True, eq=False)
class DDS(Solver):
    """Every step: denoise, a few CG steps of the proximal problem from D(z0), back to the latent, DDIM(eta).

    The published method works on pixels with gamma = 1; with an identity autoencoder this is that method
    with gamma_t = tau_t^2 / sigma_y^2 read off the residual (`DataConsistency.variance`).
    """

    prior: Prior
    steps: int = 25
    """denoiser calls"""
    eta: float = 0.85
    """share of fresh noise, the published value"""
    cg_iterations: int = 5
    """CG steps of the proximal problem, the published value"""
    start: float = 0.25
    """noise level at which the reverse process starts, from the TV reconstruction; sigma_max means from noise"""

    name: ClassVar[str] = "dds"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "decomposed diffusion sampling: a few CG steps inside every denoising step"
    needs_prior: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        space, monitor = LatentSpace(self.prior, A, y), Monitor(y, self.steps, on_step)
        dc = DataConsistency(A, y, self.cg_iterations)
        denoiser = self.prior.denoiser
        sigmas = log_uniform(self.steps, denoiser.sigma_min, min(self.start, denoiser.sigma_max)).tolist()
        warm = warm_start(self.prior, A, y, sigmas[0], generator)
        z = start_latent(space, A, y, warm)
        x, stopped, error = space.decode(z), False, pixel_error(space, z, warm=warm is not None)
        z = z + sigmas[0] * space.noise(z, generator)
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            z0 = space.denoise(z, sigma)
            v = space.decode(z0)
            projection = A(v)
            x = dc.prox(v, dc.deviation(projection, error(v, sigma, None)))
            # E(x) alone would drift: D after E is not idempotent, and its error adds up over the steps.
            shift = space.encode(x) - space.encode(v)
            z = ddim_update(z, z0, sigma, following, self.eta, space.noise(z, generator)) + shift
            stopped = monitor(A(x))
            if stopped:
                break
        return monitor.solution(A, x, not stopped, network_calls=vars(space.calls))

    @classmethod
    def examples(cls) -> Iterator[DDS]:
        from medrecon.solvers.diffusion.resample import example_prior

        yield cls(example_prior(), steps=4)
