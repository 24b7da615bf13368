"""Beam hardening: spectrum against closed forms, water precorrection against a cupped water disc."""

import math

import numpy as np
import pytest
import torch
from ct_phantoms import Ellipse, views

from medrecon.core.units import MU_WATER, hu_to_mu, mu_to_hu
from medrecon.corrections.beam_hardening import apply_polynomial, fit_polynomial, water_precorrection
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.numerics.spectrum import MASS_ATTENUATION, Spectrum, attenuation
from medrecon.operators.ct.filtered.fbp import fbp
from medrecon.operators.ct.operator import CTOperator
from medrecon.simulate.beam_hardening import polychromatic, water_and_bone

pytestmark = pytest.mark.usefixtures("one_thread")
SPECTRUM = Spectrum()
GEOMETRY = ParallelGeometry(views(180, math.pi), 180, 2.0)
GRID = ImageGrid((90, 90), (4.0, 4.0))
DISC = Ellipse(10.0, -5.0, 130.0, 130.0, mu=1.0)


def cupping(p: torch.Tensor) -> tuple[float, float]:
    """HU of the rim minus the middle of the water disc, and the mean error of the whole."""
    hu = mu_to_hu(fbp(p, GEOMETRY, GRID))
    middle, outer, inner = (DISC.inside(GRID, s) for s in (0.2, 0.9, 0.8))
    return float(hu[outer & ~inner].mean() - hu[middle].mean()), float(hu[outer].mean())


def test_water_disc_loses_its_cup() -> None:
    p = SPECTRUM.line_integrals({"water": DISC.sinogram(GEOMETRY)}).float()
    assert cupping(p)[0] > 20
    cup, level = cupping(water_precorrection(p, SPECTRUM))
    assert abs(cup) < 1 and abs(level) < 1
    assert abs(cupping(water_precorrection(p, Spectrum(80.0)))[1]) > 20  # negative control: another tube voltage


def test_precorrection_is_exact_for_water_and_keeps_air_unbiased() -> None:
    lengths = torch.tensor([0.0, 0.01, 1.0, 33.3, 250.0, 900.0], dtype=torch.float64)
    p = SPECTRUM.line_integrals({"water": lengths})
    before = p.clone()
    torch.testing.assert_close(water_precorrection(p, SPECTRUM) / MU_WATER, lengths, rtol=1e-6, atol=1e-5)
    assert torch.equal(p, before)
    noise = torch.tensor([-0.001, 0.001], dtype=torch.float64)
    corrected = water_precorrection(noise, SPECTRUM)
    assert float(corrected.sum()) == pytest.approx(0, abs=1e-6) and float(corrected[0]) < 0
    batch = torch.rand(2, 3, 4, 5)
    assert water_precorrection(batch, SPECTRUM).shape == batch.shape
    assert torch.equal(water_precorrection(batch, SPECTRUM)[1, 2], water_precorrection(batch[1, 2], SPECTRUM))


def test_polynomial_from_a_phantom() -> None:
    ideal = MU_WATER * DISC.sinogram(GEOMETRY)
    p = SPECTRUM.line_integrals({"water": ideal / MU_WATER}).float()
    coefficients = fit_polynomial(p, ideal, degree=4)
    cup, level = cupping(apply_polynomial(p, coefficients))
    assert abs(cup) < 2 and abs(level) < 1
    assert float(apply_polynomial(torch.zeros(1), coefficients)) == 0.0
    exact = torch.tensor([1.1, -0.02, 0.003], dtype=torch.float64)
    x = torch.linspace(0, 6, 50, dtype=torch.float64)
    torch.testing.assert_close(fit_polynomial(x, apply_polynomial(x, exact), 3), exact)
    assert float(apply_polynomial(torch.tensor(-0.5), exact)) == pytest.approx(-0.55)
    with pytest.raises(ValueError, match="pairs"):
        fit_polynomial(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="does not rise"):
        fit_polynomial(x, 3 * x - x**2, 2)


def test_spectrum_against_one_energy_and_the_tables() -> None:
    at = np.array([60.0])
    assert attenuation("water", at)[0] == pytest.approx(0.1 * 0.2059)  # NIST, 60 keV
    assert 0.0192 == pytest.approx(attenuation("water", np.array([70.0]))[0], rel=0.02)
    assert 60 < float(SPECTRUM.weights @ SPECTRUM.energies) < 75 and SPECTRUM.weights.sum() == pytest.approx(1)
    p = SPECTRUM.line_integrals({"water": torch.tensor([1e-4])})
    assert float(p) == pytest.approx(1e-4 * SPECTRUM.effective(), rel=1e-3)
    harder = SPECTRUM.line_integrals({"water": torch.tensor([200.0, 400.0])})
    assert float(harder[1]) < 2 * float(harder[0])
    # Reference: the plain sum of exponentials, two materials.
    a, b = 120.0, 25.0
    curves = (attenuation(m, SPECTRUM.energies) for m in ("water", "bone"))
    signal = SPECTRUM.weights @ np.exp(-sum(c * x for c, x in zip(curves, (a, b), strict=True)))
    mixed = SPECTRUM.line_integrals({"water": torch.tensor(a), "bone": torch.tensor(b)})
    assert float(mixed) == pytest.approx(-math.log(signal), rel=1e-6)
    assert math.isfinite(float(SPECTRUM.line_integrals({"iron": torch.tensor(5000.0)})))
    for material in MASS_ATTENUATION:
        assert bool((np.diff(attenuation(material, SPECTRUM.energies)) < 0).all())


def test_bone_darkens_what_lies_between() -> None:
    """Two bones in water: the water precorrection leaves a dark band between them."""
    image = Ellipse(0, 0, 120, 90, mu=MU_WATER).image(GRID)
    for x in (-60.0, 60.0):
        image = image + Ellipse(x, 0, 22, 22, mu=MU_WATER).image(GRID)
    A = CTOperator(GEOMETRY, GRID)
    flat = mu_to_hu(A.fbp(A(image)))
    hardened = mu_to_hu(A.fbp(water_precorrection(polychromatic(A, image, SPECTRUM), SPECTRUM)))
    between = Ellipse(0, 0, 15, 8).inside(GRID)
    assert float((hardened - flat)[between].mean()) < -10


def test_water_and_bone_keep_the_attenuation() -> None:
    mu = hu_to_mu(torch.tensor([-1000.0, -500.0, 0.0, 50.0, 300.0, 1000.0, 2000.0]))
    water, bone = water_and_bone(mu)
    at = np.array([70.0])
    ratio = float(attenuation("bone", at)[0] / attenuation("water", at)[0])
    torch.testing.assert_close(MU_WATER * (water + ratio * bone), mu)
    assert bool((bone[:4] == 0).all()) and bool((bone[4:] > 0).all()) and float(water[-1]) == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="kvp"):
        Spectrum(200.0)
    with pytest.raises(ValueError, match="filter_mm"):
        Spectrum(120.0, -1.0)
    with pytest.raises(ValueError, match="'gold'"):
        SPECTRUM.line_integrals({"gold": torch.ones(2)})
    with pytest.raises(ValueError, match="keV"):
        attenuation("water", np.array([5.0]))
    with pytest.raises(ValueError, match="at least one"):
        SPECTRUM.line_integrals({})
