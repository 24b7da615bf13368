"""The yardsticks of denoising and likelihood: a stationary Gaussian and a mixture of them, of the training latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.diagnose.base import Case
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.mixture import StationaryMixture, fit_mixture
from medrecon.models.exact.wiener import Wiener
from medrecon.models.networks.wiener_unet import WienerUNet

TRAINING = 256
"""training slices the Gaussian is fitted to, where the denoiser does not bring its own"""
MIXED = 512
"""training slices the mixture is fitted to"""
COMPONENTS = 16


@dataclass(frozen=True, eq=False)
class Stationary(Denoiser):
    """Its exact denoiser, and its density in closed form."""

    wiener: Wiener
    sigma_min: float
    sigma_max: float

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.wiener(z, torch.as_tensor(sigma, dtype=z.dtype, device=z.device).expand(len(z)))[0]

    def log_density(self, z: Tensor, sigma: float) -> Tensor:
        """log p(z), natural, of z = z0 + sigma n; z (B, C, h, w) -> (B,) float64.

        The unitary DFT and the eigenvectors of the cross-spectral density make the coefficients independent.
        """
        values, vectors = self.wiener.eigen((z.shape[-2], z.shape[-1]))
        f = torch.fft.fft2(z - self.wiener.mean, norm="ortho").movedim(1, -1)[..., None]
        power = (vectors.mH @ f)[..., 0].abs().double().square()
        variance = values.double() + sigma**2
        return -0.5 * (power / variance + (2 * math.pi * variance).log()).flatten(1).sum(1)


def fitted(case: Case) -> tuple[Stationary, str] | None:
    """The Gaussian and where it comes from: the denoiser's own, else fitted to training slices; None without either."""
    denoiser = case.prior.denoiser
    if isinstance(denoiser, WienerUNet):
        return Stationary(denoiser.wiener, denoiser.sigma_min, denoiser.sigma_max), "the one fitted in training"
    if case.training is None:
        return None
    latents = case.encode(case.training_images(TRAINING))
    wiener = Wiener(latents.shape[1], latents.shape[-1]).to(latents.device)
    wiener.fit(latents)
    return Stationary(wiener, denoiser.sigma_min, denoiser.sigma_max), f"fitted to {len(latents)} training slices"


def fitted_mixture(case: Case) -> StationaryMixture | None:
    """The mixture fitted to training slices as they are, so that chest, abdomen and head have means of their own."""
    if case.training is None:
        return None
    return fit_mixture(case.encode(case.training_images(MIXED)), COMPONENTS, case.settings.generator())
