"""Whitening: covariance from a noise scan of another bandwidth, white virtual coils, their units, bad noise scans."""

import pytest
import torch
from coil_phantom import phantom
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.coils.whitening import noise_covariance, noise_scale, whiten_coils, whitening_matrix
from medrecon.operators.mri.cartesian import CartesianMRI


def correlated(coils: int, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise (C, S), complex64, and its covariance."""
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(coils, coils, dtype=torch.complex128, generator=g) + 2 * torch.eye(coils)
    noise = root @ torch.randn(coils, samples, dtype=torch.complex128, generator=g)
    return noise.to(torch.complex64), root @ root.mH


def test_covariance_of_a_noise_scan() -> None:
    noise, truth = correlated(4, 200_000)
    found = noise_covariance(noise)
    assert float((found - truth).abs().max() / truth.abs().max()) < 0.01
    assert torch.allclose(found, found.mH) and found.dtype == torch.complex128
    readouts = noise.reshape(4, 100, 2000).transpose(0, 1)
    assert torch.allclose(noise_covariance(readouts), found)
    assert float((noise_covariance(noise.conj()) - truth.conj()).abs().max() / truth.abs().max()) < 0.01


def test_a_longer_dwell_time_is_less_noise() -> None:
    """Data sampled half as fast as the noise scan: averages of two of its samples."""
    noise, _ = correlated(3, 100_000)
    slow = (noise[:, ::2] + noise[:, 1::2]) / 2
    scale = noise_scale(data_dwell=10.0, noise_dwell=5.0, bandwidth=1.0)
    a, b = noise_covariance(slow), noise_covariance(noise, scale=scale)
    assert float((a - b).abs().max() / a.abs().max()) < 0.02
    assert noise_scale(10.0, 5.0) == pytest.approx(2 * 0.79)
    with pytest.raises(ValueError, match="positive"):
        noise_scale(0.0, 5.0)


@pytest.mark.parametrize("keep_units", [False, True])
def test_whitened_noise_is_white(keep_units: bool) -> None:
    noise, covariance = correlated(5, 50_000)
    covariance, noise = 1e-14 * covariance, 1e-7 * noise  # scanner units
    matrix, sigma = whitening_matrix(covariance, keep_units=keep_units)
    white = matrix @ covariance @ matrix.mH
    assert torch.allclose(white, sigma**2 * torch.eye(5).to(white), atol=1e-10 * sigma**2)
    assert torch.allclose(matrix, matrix.tril())
    measured = noise_covariance((matrix @ noise.to(matrix)).to(torch.complex64))
    assert float((measured / sigma**2 - torch.eye(5)).abs().max()) < 0.05
    mean = float(covariance.diagonal().real.mean().sqrt())
    assert sigma == pytest.approx(mean if keep_units else 1.0)


def test_whitened_coils_have_unit_uncorrelated_noise_and_the_same_image(generator: torch.Generator) -> None:
    noise, covariance = correlated(3, 6400)
    maps = birdcage_maps(3, (80, 80), generator)
    white, white_maps = whiten_coils(noise.reshape(3, 80, 80), maps, covariance)
    samples = white.reshape(3, -1)
    assert float((samples @ samples.mH / samples.shape[1] - torch.eye(3)).abs().max()) < 0.06
    x, mask = phantom((80, 80)), torch.ones(80, 80)
    data, seen = whiten_coils(CartesianMRI(maps, mask)(x), maps, covariance)
    assert torch.allclose(CartesianMRI(seen, mask)(x), data, atol=1e-4)
    assert white_maps.shape == maps.shape
    with pytest.raises(ValueError, match="positive definite"):
        whiten_coils(data, maps, -covariance)
    with pytest.raises(ValueError, match="3 coils"):
        whiten_coils(data, maps, covariance[:2, :2])


def test_bad_noise_scans() -> None:
    noise, _ = correlated(4, 1000)
    dead = noise.clone()
    dead[2] = 0
    nan = noise.clone()
    nan[0, 5] = torch.nan
    for bad, message in (
        (noise.real, "complex"),
        (noise[0], "complex"),
        (noise[:, :7], "too few"),
        (noise.T, "axes"),
        (nan, "NaN"),
        (dead, r"coils \[2\] have no noise"),
    ):
        with pytest.raises(ValueError, match=message):
            noise_covariance(bad)
    twice = torch.cat([noise, noise[:1]])
    with pytest.raises(ValueError, match="positive definite"):
        whitening_matrix(noise_covariance(twice) - 1e-9 * torch.eye(5))
    with pytest.raises(ValueError, match="Hermitian"):
        whitening_matrix(torch.ones(3, 2, dtype=torch.complex64))
