"""Coil maps: ESPIRiT against the truth, birdcage maps, smooth phase, whitening."""

import pytest
import torch

from medrecon.operators.coils import birdcage_maps, calibration_width, espirit, smooth_phase, whiten_coils
from medrecon.operators.masks import random_mask
from medrecon.operators.mri import CartesianMRI


def _phantom(size: int) -> torch.Tensor:
    """A disc with two inserts and a smooth phase."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    disc = (x**2 + y**2 < 0.7) + 0.5 * ((x - 0.3) ** 2 + y**2 < 0.05) - 0.4 * (x**2 + (y + 0.4) ** 2 < 0.04)
    return torch.polar(disc, 0.8 * x + 0.5 * y)


@pytest.mark.parametrize("shape", [(16, 16), (15, 22)])
@pytest.mark.parametrize("coils", [1, 6])
def test_birdcage_maps_are_normalised_smooth_and_seeded(coils: int, shape: tuple[int, int]) -> None:
    first, again, other = (birdcage_maps(coils, shape, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert first.shape == (coils, *shape)
    assert float((first.abs().square().sum(0) - 1).abs().max()) < 1e-5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.diff(dim=-1).abs().max()) < 0.5


def test_espirit_finds_the_true_maps(generator: torch.Generator) -> None:
    maps, x = birdcage_maps(6, (64, 64), generator), _phantom(64)
    kspace = CartesianMRI(maps, random_mask((64, 64), 2, 20, generator))(x)
    found = espirit(kspace)
    support = (x.abs() > 0.1) & (found.abs().sum(0) > 0)
    overlap = (found.conj() * maps).sum(0).abs()[support]
    assert float(overlap.median()) > 0.999
    assert float(overlap.quantile(0.05)) > 0.98
    assert float(support.sum() / (x.abs() > 0.1).sum()) > 0.95
    assert float((found.abs().square().sum(0)[support] - 1).abs().max()) < 1e-4
    assert espirit(torch.stack([kspace, kspace])).shape == (2, 6, 64, 64)


def test_espirit_without_acs_names_the_remedy(generator: torch.Generator) -> None:
    kspace = torch.randn(4, 32, 32, dtype=torch.complex64, generator=generator)
    with pytest.raises(ValueError, match="ACS"):
        espirit(kspace * random_mask((32, 32), 8, 4, generator))
    with pytest.raises(ValueError, match="NaN"):
        espirit(kspace * float("nan"))
    with pytest.raises(ValueError, match="complex"):
        espirit(kspace.real)


def test_calibration_width() -> None:
    mask = torch.zeros(9, 12)
    mask[:, 4:9] = 1
    assert calibration_width(mask) == 5
    assert calibration_width(torch.ones(9, 12)) == 9
    assert calibration_width(1 - mask) == 0


def test_smooth_phase_is_that_of_the_object(generator: torch.Generator) -> None:
    maps, x = birdcage_maps(4, (64, 64), generator), _phantom(64)
    kspace = CartesianMRI(maps, random_mask((64, 64), 3, 16, generator))(x)
    phase = smooth_phase(kspace, maps)
    assert float((phase.abs() - 1).abs().max()) < 1e-5
    inside = x.abs() > 0.3
    assert float((phase * x.conj() / x.abs().clamp_min(1e-6))[inside].angle().abs().median()) < 0.05
    assert torch.equal(smooth_phase(torch.stack([kspace, 2j * kspace]), maps)[0], phase)
    assert bool((smooth_phase(kspace * 0, maps, width=8) == 1).all())
    with pytest.raises(ValueError, match="zero frequency"):
        smooth_phase(kspace * 0, maps)


def test_whitened_coils_have_unit_uncorrelated_noise_and_the_same_image(generator: torch.Generator) -> None:
    root = torch.randn(3, 3, dtype=torch.complex128, generator=generator) + 2 * torch.eye(3)
    covariance = root @ root.mH
    noise = torch.einsum("ij,jhw->ihw", root, torch.randn(3, 80, 80, dtype=torch.complex128, generator=generator))
    maps = birdcage_maps(3, (80, 80), generator)
    white, white_maps = whiten_coils(noise, maps, covariance)
    samples = white.reshape(3, -1)
    assert float((samples @ samples.mH / samples.shape[1] - torch.eye(3)).abs().max()) < 0.06
    x, mask = _phantom(80), torch.ones(80, 80)
    data, seen = whiten_coils(CartesianMRI(maps, mask)(x), maps, covariance)
    assert torch.allclose(CartesianMRI(seen, mask)(x), data, atol=1e-4)
    assert white_maps.shape == maps.shape
    with pytest.raises(ValueError, match="positive definite"):
        whiten_coils(noise, maps, -covariance)
    with pytest.raises(ValueError, match="3 coils"):
        whiten_coils(noise, maps, covariance[:2, :2])
