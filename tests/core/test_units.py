"""Hounsfield units against published attenuation."""

import math

import pytest
import torch

from medrecon.core.units import MU_WATER, hu_to_mu, mu_to_hu

NIST = {60.0: 0.2059, 80.0: 0.1837}
"""Mass attenuation of water with coherent scatter [cm^2/g] by keV: Hubbell & Seltzer, NISTIR 5632."""
DENSITY = 0.998
"""of water at 20 C [g/cm^3]"""


def published(energy: float) -> float:
    """Attenuation of water [1/mm] between 60 and 80 keV, straight in logarithms as between all lines of the table."""
    share = math.log(energy / 60) / math.log(80 / 60)
    return DENSITY / 10 * math.exp((1 - share) * math.log(NIST[60.0]) + share * math.log(NIST[80.0]))


def test_water_attenuates_as_published_at_the_effective_energy() -> None:
    """From 70 to 72 keV: a range of 1.3 %, which 1 % more or less leaves."""
    assert published(72) < MU_WATER < published(70)
    assert published(72) == pytest.approx(0.0191, abs=5e-5) and published(70) == pytest.approx(0.0193, abs=5e-5)


def test_fixed_points_and_slope_of_the_scale() -> None:
    """Water is 0 and air -1000; a HU is a thousandth of the distance between them."""
    mu = torch.tensor([0.0004, 0.0204, 0.0304], dtype=torch.float64)
    torch.testing.assert_close(mu_to_hu(mu, 0.0204, 0.0004), torch.tensor([-1000.0, 0.0, 500.0]).double())
    hu = torch.tensor([-2000.0, -1000.0, 0.0, 500.0], dtype=torch.float64)
    torch.testing.assert_close(hu_to_mu(hu), MU_WATER * torch.tensor([0.0, 0.0, 1.0, 1.5]).double())
    torch.testing.assert_close(mu_to_hu(hu_to_mu(hu[1:])), hu[1:])
