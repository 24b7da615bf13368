"""Attenuation as printed by NIST, and laws of a spectrum."""

import numpy as np
import pytest

from medrecon.numerics.spectrum import attenuation

PRINTED = {
    "water": "5.329E+00 1.673E+00 8.096E-01 3.756E-01 2.683E-01 2.269E-01 2.059E-01 1.837E-01 1.707E-01 1.505E-01",
    "bone": "2.851E+01 9.032E+00 4.001E+00 1.331E+00 6.655E-01 4.242E-01 3.148E-01 2.229E-01 1.855E-01 1.480E-01",
    "aluminium": "2.623E+01 7.955E+00 3.441E+00 1.128E+00 5.685E-01 3.681E-01 2.778E-01 2.018E-01 1.704E-01 1.378E-01",
    "titanium": "1.107E+02 3.587E+01 1.585E+01 4.972E+00 2.214E+00 1.213E+00 7.661E-01 4.052E-01 2.721E-01 1.649E-01",
    "iron": "1.706E+02 5.708E+01 2.568E+01 8.176E+00 3.629E+00 1.958E+00 1.205E+00 5.952E-01 3.717E-01 1.964E-01",
}
"""mu / rho [cm^2/g] at the energies below: Hubbell & Seltzer, NISTIR 5632, tables 3 and 4, as they are printed."""
ENERGIES = np.array([10, 15, 20, 30, 40, 50, 60, 80, 100, 150], dtype=np.float64)
DENSITY = {"water": 1.000, "bone": 1.920, "aluminium": 2.699, "titanium": 4.540, "iron": 7.874}


@pytest.mark.parametrize("material", PRINTED)
def test_tables_are_those_printed(material: str) -> None:
    """In 1/mm at nominal density; between two lines straight in logarithms."""
    printed = 0.1 * DENSITY[material] * np.array([float(number) for number in PRINTED[material].split()])
    np.testing.assert_allclose(attenuation(material, ENERGIES), printed, rtol=1e-9)
    between = np.sqrt(ENERGIES[:-1] * ENERGIES[1:])
    np.testing.assert_allclose(attenuation(material, between), np.sqrt(printed[:-1] * printed[1:]), rtol=1e-9)


def test_what_is_not_in_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown material 'lead'"):
        attenuation("lead", ENERGIES)
    for energy in (9.9, 150.1):
        with pytest.raises(ValueError, match=r"energies must be within 10 \.\. 150 keV"):
            attenuation("water", np.array([60.0, energy]))
