"""The intensity scale of an MR scan, on an image whose quantile is known."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.numerics.fourier import centred_fft
from medrecon.pipeline.mri_problem import CartesianProblem
from medrecon.simulate import simulate_mri

SIDE, SLICES = 64, 3


@pytest.fixture(scope="module")
def ramp(disc_volume: Callable[..., Volume]) -> tuple[Scan, torch.Tensor]:
    """One coil sees everything, all samples are there: the magnitudes 1 / n, 2 / n, ... 1 in any order and phase."""
    scan = simulate_mri(disc_volume("MR", SIDE, SLICES), accel=1, coils=1, generator=torch.Generator().manual_seed(0))
    count = SLICES * SIDE * SIDE
    generator = torch.Generator().manual_seed(1)
    magnitude = (torch.randperm(count, generator=generator) + 1) / count
    image = torch.polar(magnitude, 6 * torch.rand(count, generator=generator)).reshape(SLICES, 1, SIDE, SIDE)
    full = torch.ones(SIDE, SIDE, dtype=torch.bool)
    return replace(scan, data=centred_fft(image), mask=full, maps=torch.ones_like(image)), image[:, 0]


def test_scale_is_the_magnitude_that_one_pixel_in_a_thousand_exceeds(ramp: tuple[Scan, torch.Tensor]) -> None:
    scan, image = ramp
    scale = CartesianProblem(scan, "cpu").scale
    assert scale == pytest.approx(0.999, abs=1e-4)
    assert float((image.abs() > scale).float().mean()) == pytest.approx(1e-3, abs=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 40.0])
def test_scale_follows_the_units_of_the_scanner(ramp: tuple[Scan, torch.Tensor], factor: float) -> None:
    scan, _ = ramp
    one, other = (CartesianProblem(replace(scan, data=f * scan.data), "cpu").scale for f in (1.0, factor))
    assert other == pytest.approx(factor * one, rel=1e-4)
