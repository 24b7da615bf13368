"""A scan at a fraction of its dose, by noise inserted into the real projections."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan


def insert_noise(p_hat: Tensor, noise: CTNoise, fraction: float, generator: torch.Generator) -> Tensor:
    """Measured line integrals (..., V, D) as if `fraction` of the photons had been sent; the noise is then
    `noise.at_dose(fraction)`.

    The measured counts N = i0 exp(-p_hat) have mean l and variance l + s^2, s = sigma_e. A scan at the fraction f has
    mean f l and variance f l + s^2. The photons that remain are drawn from those that were measured and the rest of
    the electronic noise is added,

        N' = f N + (Binomial(n, f) - f n) + sqrt(1 - f^2) s e,   n = max(round(N), 0), e ~ Normal(0, 1),

    with mean f l and variance f^2 (l + s^2) + f (1 - f) l + (1 - f^2) s^2 = f l + s^2. Without electronic noise N' is
    Binomial(N, f), distributed exactly as a scan at f. The idea of noise insertion with electronic noise: Yu et al.,
    J. Comput. Assist. Tomogr. 36:477 (2012); the formula is derived here. Where the given scan was itself starved
    (N of the order of s) its clipping at one count cannot be undone: there the mean comes out too high.

    Raises:
        ValueError: a fraction outside (0, 1]: noise cannot be taken away.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"insert_noise: fraction must be within (0, 1], got {fraction}: dose cannot be added")
    if fraction == 1:
        return p_hat.clone()
    i0 = noise.photons(p_hat)
    counts = i0 * torch.exp(-p_hat.detach().double())
    photons = counts.round().clamp_min(0)
    kept = torch.binomial(photons, torch.full_like(photons, fraction), generator=generator)
    electronic = torch.randn(counts.shape, dtype=counts.dtype, device=counts.device, generator=generator)
    lowered = fraction * (counts - photons) + kept + (1 - fraction**2) ** 0.5 * noise.sigma_e * electronic
    return -torch.log(lowered.clamp_min(1) / (fraction * i0)).to(p_hat.dtype)


def reduce_dose(scan: Scan, fraction: float, generator: torch.Generator) -> Scan:
    """A CT scan at `fraction` of its dose, with the noise model that belongs to it.

    Raises:
        ValueError: not a CT scan, one without noise/i0 or with rays that were filled in, or a fraction outside (0, 1].
    """
    if scan.modality != "ct":
        raise ValueError(f"reduce_dose: needs a CT scan, got {scan.modality}")
    if scan.provenance.get("corrected"):
        raise ValueError(
            "reduce_dose: the scan is corrected, and its noise is that of the original; lower its dose first"
        )
    noise = scan.noise if isinstance(scan.noise, CTNoise) else CTNoise()
    lowered = insert_noise(scan.data, noise, fraction, generator)
    before = scan.provenance.get("dose_fraction", 1.0)
    return replace(
        scan,
        data=lowered,
        noise=noise.at_dose(fraction),
        provenance={**scan.provenance, "dose_fraction": before * fraction, "dose_seed": generator.initial_seed()},
    )
