"""X-ray spectra of a tube, attenuation of materials over energy, and the line integrals a detector sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENERGIES = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
"""keV of the tables below."""
MASS_ATTENUATION = {
    "water": (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "bone": (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "aluminium": (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
    "titanium": (110.7, 35.87, 15.85, 4.972, 2.214, 1.213, 0.7661, 0.4052, 0.2721, 0.1649),
    "iron": (170.6, 57.08, 25.68, 8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717, 0.1964),
}
"""Total mass attenuation coefficients with coherent scatter [cm^2/g]: J. H. Hubbell and S. M. Seltzer, NISTIR 5632
(NIST Standard Reference Database 126); bone is 'Bone, Cortical (ICRU-44)'. No absorption edge lies in this range."""
DENSITY = {"water": 1.0, "bone": 1.92, "aluminium": 2.699, "titanium": 4.54, "iron": 7.874}
"""g/cm^3, of the same tables."""


def attenuation(material: str, energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the linear attenuation at nominal density [1/mm] at energies [keV]; tables interpolated log-log.

    Raises:
        ValueError: an unknown material, or energies outside the tables.
    """
    if material not in MASS_ATTENUATION:
        raise ValueError(f"attenuation: unknown material {material!r}; known are {', '.join(MASS_ATTENUATION)}")
    if energies.min() < ENERGIES[0] or energies.max() > ENERGIES[-1]:
        raise ValueError(f"attenuation: energies must be within {ENERGIES[0]:.0f} .. {ENERGIES[-1]:.0f} keV")
    mass = np.exp(np.interp(np.log(energies), np.log(ENERGIES), np.log(MASS_ATTENUATION[material])))
    return np.asarray(0.1 * DENSITY[material] * mass)


@dataclass(frozen=True)
class Spectrum:
    """What an energy-integrating detector sees of a tungsten-like tube: Kramers' law through an aluminium filter.

    Weight of an energy E: E (kvp - E) / E exp(-mu_Al(E) filter), the photons of Kramers (Phil. Mag. 46:836, 1923)
    times the signal of each; characteristic lines are left out.

    Attributes:
        kvp: tube voltage [kV], 40 .. 150.
        filter_mm: inherent and added filtration in mm of aluminium.
    """

    kvp: float = 120.0
    filter_mm: float = 8.0

    def __post_init__(self) -> None:
        if not 40 <= self.kvp <= ENERGIES[-1]:
            raise ValueError(f"Spectrum: kvp must be within 40 .. {ENERGIES[-1]:.0f} kV, got {self.kvp}")
        if not 0 <= self.filter_mm <= 100:
            raise ValueError(f"Spectrum: filter_mm must be within 0 .. 100 mm of aluminium, got {self.filter_mm}")

    @cached_property
    def energies(self) -> NDArray[np.float64]:
        """Return middles of bins of 1 keV."""
        return np.arange(ENERGIES[0], self.kvp - 1) + 0.5

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Return the share of each bin in the signal without object; they add up to 1."""
        signal = (self.kvp - self.energies) * np.exp(-attenuation("aluminium", self.energies) * self.filter_mm)
        return np.asarray(signal / signal.sum())

    def effective(self, material: str = "water") -> float:
        """Return the attenuation of a thin layer [1/mm]: mean over the signal."""
        return float(self.weights @ attenuation(material, self.energies))

    def line_integrals(self, paths: Mapping[str, Tensor]) -> Tensor:
        """Return -ln of the signal after path lengths [mm] of materials at nominal density, float64, shaped like them.

        p = -ln sum_E w(E) exp(-sum_m mu_m(E) L_m)

        Raises:
            ValueError: no material, or an unknown one.
        """
        if not paths:
            raise ValueError("line_integrals: needs the path length of at least one material")
        curves = {m: attenuation(m, self.energies) for m in paths}
        total = torch.full((), -torch.inf, dtype=torch.float64)
        for i, weight in enumerate(self.weights):
            exponent = sum((float(curves[m][i]) * length.double() for m, length in paths.items()), torch.zeros(()))
            # Of logarithms: a signal of e^-800 behind thick metal must not become 0.
            total = torch.logaddexp(total.to(exponent.device), float(np.log(weight)) - exponent)
        return -total
