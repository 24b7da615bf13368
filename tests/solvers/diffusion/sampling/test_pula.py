"""pULA against the exact Gaussian posterior, of real and of complex images."""

from __future__ import annotations

import pytest
import torch
from gaussian_problems import inpainting, rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.sampling.pula import PULA

pytestmark = pytest.mark.usefixtures("one_thread")


def gap(cls: type[PULA], sweeps: int = 4, step: float = 0.4) -> tuple[float, float]:
    prior, A, y, mean, deviation = inpainting(8, 0.1)
    solver = cls(prior, samples=100, steps=40, start=5.0, end=0.02, sweeps=sweeps, step=step)
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    return rms(solution.image[0] - mean) / rms(deviation), rms(solution.diagnostics["deviation"][0]) / rms(deviation)


def test_mean_and_spread_and_more_sweeps_are_better() -> None:
    few, many = gap(PULA, 1), gap(PULA, 4)
    assert many[0] < 0.5 and 0.95 < many[1] < 1.25
    assert few[0] > 1.3 * many[0] and few[1] > many[1]


def test_without_noise_of_the_right_size_it_does_not() -> None:
    class Small(DataConsistency):
        def drawn(self, v: Tensor, tau: Tensor, draw: Draw, size: float = 1.0) -> Tensor:
            return super().drawn(v, tau, draw)

    class Mutant(PULA):
        def consistency(self, A: LinearOperator, y: Measurement) -> DataConsistency:
            return Small(A, y)

    assert gap(Mutant)[1] < 0.9


def test_complex_images_have_the_spread_of_complex_noise() -> None:
    """All pixels seen, phases and all; a white prior, E|x|^2 = 2, and E|n|^2 = 0.25: known by hand."""
    n, noise, step = 24, 0.5, 0.2
    white = GaussianPrior(torch.zeros(2 * n).double(), torch.eye(2 * n).double(), (2, 4, 6))
    prior = Prior(IdentityAutoencoder(complex=True), white, Linear(-1.0, 1.0), "a.u.", "MR", error=0.0)
    A = Diagonal(torch.polar(torch.ones(4, 6), torch.linspace(0, 5, n).reshape(4, 6)))
    data = torch.randn(1, 4, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    y = Measurement(data, torch.full((1, 1, 1), noise**-2))
    solver = PULA(prior, samples=400, steps=30, start=5.0, end=0.02, sweeps=2, step=step)
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    gain, variance = 2 / (2 + noise**2), 2 * noise**2 / (2 + noise**2)
    assert rms((solution.image - gain * A.adjoint(data)).abs()) < 0.15 * variance**0.5
    assert rms(solution.diagnostics["deviation"]) == pytest.approx((variance / (1 - step / 2)) ** 0.5, rel=0.06)


def test_bad_settings_are_refused() -> None:
    for settings in ({"step": 2.0}, {"step": 0.0}, {"sweeps": 0}):
        with pytest.raises(ValueError, match="step between 0 and 2"):
            PULA(example_prior(), **settings)  # type: ignore[arg-type]
