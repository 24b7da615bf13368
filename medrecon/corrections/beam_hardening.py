"""Water precorrection: polychromatic line integrals to those of one energy, by the spectrum or by a polynomial."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrecon.core.units import MU_WATER
from medrecon.numerics.spectrum import Spectrum

STEP = 0.25
"""mm of water between the nodes of the inverted curve; interpolation between them errs by less than 1e-5 mm."""


def water_precorrection(p: Tensor, spectrum: Spectrum, mu_water: float = MU_WATER) -> Tensor:
    """Polychromatic line integrals (any shape) -> mu_water L, where L is the length of water that gives the same p.

    Exact for water and what attenuates like it at every energy; bone keeps a residual (Joseph & Spital, J. Comput.
    Assist. Tomogr. 2:100, 1978). Noise that makes p negative is scaled by the slope at 0, so that air stays unbiased.
    """
    curve, lengths = _curve(spectrum, float(p.max()) if p.numel() else 0.0)
    values = p.detach().cpu().double().numpy()
    slope = lengths[1] / curve[1]
    water = np.where(values < 0, values * slope, np.interp(values, curve, lengths))
    return torch.from_numpy(mu_water * water).to(p)


def _curve(spectrum: Spectrum, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """p over lengths of water [mm], both rising from 0, up to a p of at least `largest`."""
    end = 500.0
    while True:
        lengths = np.arange(0.0, end, STEP)
        curve = spectrum.line_integrals({"water": torch.from_numpy(lengths)}).numpy()
        if curve[-1] >= largest:
            return curve - curve[0], lengths
        end *= 2


def fit_polynomial(measured: Tensor, ideal: Tensor, degree: int = 4) -> Tensor:
    """Coefficients c_1 .. c_degree of ideal = sum c_k measured^k by least squares; no constant, so air stays air.

    `measured` are line integrals of known lengths L of water (a step wedge, or rays through a water phantom whose
    outline is known), `ideal` is mu_water L; any shape, both alike.

    Raises:
        ValueError: different shapes, too few samples, or a fit that does not rise over the range of the samples.
    """
    if measured.shape != ideal.shape or degree < 1 or measured.numel() < degree:
        raise ValueError(
            f"fit_polynomial: needs {max(degree, 1)} or more pairs of alike shapes, "
            f"got {tuple(measured.shape)} and {tuple(ideal.shape)}"
        )
    x = measured.detach().cpu().double().flatten()
    scale = x.abs().max().clamp_min(1e-12)
    powers = torch.stack([(x / scale) ** k for k in range(1, degree + 1)], dim=1)
    solution = torch.linalg.lstsq(powers, ideal.detach().cpu().double().flatten()[:, None], driver="gelsd").solution
    coefficients = solution[:, 0] / scale ** torch.arange(1, degree + 1)
    grid = torch.linspace(0, float(x.max()), 200, dtype=torch.float64)
    if bool((apply_polynomial(grid, coefficients).diff() <= 0).any()):
        raise ValueError(
            f"fit_polynomial: degree {degree} does not rise over the samples; take a lower degree or "
            "thicknesses spread from 0 to the largest"
        )
    return coefficients


def apply_polynomial(p: Tensor, coefficients: Tensor) -> Tensor:
    """sum c_k p^k of line integrals of any shape; linear below 0."""
    c = coefficients.to(p)
    positive = p.clamp_min(0)
    corrected = torch.zeros_like(p)
    for value in reversed(c):
        corrected = (corrected + value) * positive
    return corrected + c[0] * p.clamp_max(0)
