"""Polychromatic line integrals of an image of water and bone."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from medrecon.core.units import MU_WATER
from medrecon.numerics.spectrum import Spectrum, attenuation
from medrecon.operators.base import LinearOperator

SOFT, HARD = 1.1, 2.2
"""Attenuation over that of water where bone begins (100 HU), and where all of it is bone (1200 HU)."""


def polychromatic(A: LinearOperator, mu: Tensor, spectrum: Spectrum, mu_water: float = MU_WATER) -> Tensor:
    """Line integrals (..., V, D) that a tube with this spectrum gives of an image mu (..., H, W) [1/mm].

    The image says how much attenuates, `water_and_bone` splits it into two materials, A gives the path length of
    each. Noise is added afterwards (`CTNoise.simulate`).
    """
    water, bone = water_and_bone(mu, mu_water)
    return spectrum.line_integrals({"water": A(water), "bone": A(bone)}).to(mu.dtype)


def water_and_bone(mu: Tensor, mu_water: float = MU_WATER, energy: float = 70.0) -> tuple[Tensor, Tensor]:
    """Shares of water and of cortical bone, 1 at nominal density, that attenuate like mu together at `energy` [keV].

    Below 100 HU all is water of another density, above 1200 HU all is bone of another density, and between the two
    the part of bone in the attenuation rises linearly.
    """
    relative = (mu / mu_water).clamp_min(0)
    hard = ((relative - SOFT) / (HARD - SOFT)).clamp(0, 1)
    at = np.array([energy])
    ratio = float(attenuation("bone", at)[0] / attenuation("water", at)[0])
    return relative * (1 - hard), relative * hard / ratio
