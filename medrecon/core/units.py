"""Hounsfield units and linear attenuation."""

from __future__ import annotations

from torch import Tensor

MU_WATER = 0.0192
"""Attenuation of water at about 70 keV [1/mm], the usual effective energy of a 120 kV scan."""


def hu_to_mu(hu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """HU -> attenuation [1/mm]; below -1000 HU, where there is no matter, 0."""
    return (mu_water * (1 + hu / 1000)).clamp_min(0)


def mu_to_hu(mu: Tensor, mu_water: float = MU_WATER, mu_air: float = 0.0) -> Tensor:
    """Attenuation [1/mm] -> HU; 0 for water, -1000 for air: vacuum, or what a scanner measures there."""
    return 1000 * ((mu - mu_air) / (mu_water - mu_air) - 1)


def water_calibration(mu: Tensor, water: Tensor, air: Tensor | None = None) -> tuple[float, float]:
    """(mu_water, mu_air) for `mu_to_hu`, measured in the reconstruction mu (..., H, W) [1/mm] of a water phantom.

    `water` and `air` are bool masks that broadcast to mu, of regions well inside the water and outside the phantom;
    without `air` one point is measured, and mu_air = 0. A measurement file takes mu_water as `noise/mu_water`.

    Raises:
        ValueError: an empty region, or water that does not attenuate more than air.
    """
    means = [0.0, 0.0]
    for i, region in enumerate((water, air)):
        if region is not None:
            values = mu[region.bool().to(mu.device).expand(mu.shape)]
            if not values.numel():
                raise ValueError(f"water_calibration: the region of {('water', 'air')[i]} is empty")
            means[i] = float(values.double().mean())
    if not means[0] > means[1]:
        raise ValueError(
            f"water_calibration: water attenuates {means[0]:.5g}/mm, air {means[1]:.5g}/mm; "
            "are the masks of this image, and is it in 1/mm?"
        )
    return means[0], means[1]
