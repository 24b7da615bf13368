"""Hounsfield units and linear attenuation."""

from __future__ import annotations

from torch import Tensor

MU_WATER = 0.0192
"""Attenuation of water at about 70 keV [1/mm], the usual effective energy of a 120 kV scan."""


def hu_to_mu(hu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """HU -> attenuation [1/mm]; below -1000 HU, where there is no matter, 0."""
    return (mu_water * (1 + hu / 1000)).clamp_min(0)


def mu_to_hu(mu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """Attenuation [1/mm] -> HU; 0 for water, -1000 for vacuum."""
    return 1000 * (mu / mu_water - 1)
