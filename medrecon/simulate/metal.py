"""Metal in the scan: line integrals hardened by it, and starved of photons behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.core.noise import CTNoise
from medrecon.core.units import MU_WATER
from medrecon.numerics.spectrum import Spectrum
from medrecon.operators.base import LinearOperator
from medrecon.simulate.beam_hardening import water_and_bone


def metal_scan(
    A: LinearOperator,
    mu: Tensor,
    metal: Tensor,
    spectrum: Spectrum,
    noise: CTNoise,
    generator: torch.Generator,
    material: str = "titanium",
    mu_water: float = MU_WATER,
) -> Tensor:
    """Noisy polychromatic line integrals (..., V, D) of an image mu (..., H, W) [1/mm] with metal in it.

    A water precorrection belongs behind it, as in a scanner (`corrections/beam_hardening.py`).

    Args:
        metal: share of each pixel that is metal, 0 .. 1, broadcasts to mu; it takes the place of tissue.
        material: of `medrecon.numerics.spectrum.MASS_ATTENUATION`, at its nominal density.

    Raises:
        ValueError: an unknown material, or shares outside 0 .. 1.
    """
    if not bool(((metal >= 0) & (metal <= 1)).all()):
        raise ValueError("metal_scan: metal is the share of each pixel, within 0 .. 1")
    water, bone = water_and_bone(mu * (1 - metal), mu_water)
    # A float32 projector may leave -1e-7 where there is nothing.
    paths = {"water": A(water), "bone": A(bone), material: A(metal.to(mu.dtype).expand(mu.shape))}
    p = spectrum.line_integrals({name: path.clamp_min(0) for name, path in paths.items()})
    return noise.simulate(p, generator).to(mu.dtype)
