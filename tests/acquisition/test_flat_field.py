"""Flat field: exact where nothing is wrong, mends and counts what is, and photons from repeated flats."""

import numpy as np
import pytest

from medrecon.acquisition.flat_field import flat_field, photons

pytestmark = pytest.mark.usefixtures("one_thread")


def case() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Line integrals, counts, flat, dark; (2, 20, 40)."""
    z, v, d = np.meshgrid(np.arange(2), np.arange(20), np.arange(40), indexing="ij")
    p = 1 + 0.02 * d + 0.01 * v + 0.1 * z
    flat, dark = 1000 + 10.0 * d[:, 0], 50 + 0.5 * d[:, 0]
    return p, dark[:, None] + (flat - dark)[:, None] * np.exp(-p), flat, dark


def test_exact() -> None:
    p, counts, flat, dark = case()
    found = flat_field(counts, flat, dark)
    assert found.lines.dtype == np.float32 and (found.dead, found.empty) == (0, 0)
    assert np.allclose(found.lines, p, atol=1e-5)
    assert not np.allclose(flat_field(counts, flat, dark * 0).lines, p, atol=1e-2)  # the dark field matters


def test_dead_elements_and_empty_samples_are_interpolated_and_counted() -> None:
    p, counts, flat, dark = case()
    flat[0, 7] = dark[0, 7]  # sees no beam
    flat[1, 39] = 0.0  # below the dark field, at the border
    counts[1, 3, 10:12] = dark[1, 10:12] - 5
    counts[1, 4, 20] = 0.0
    found = flat_field(counts, flat, dark)
    assert (found.dead, found.empty) == (2, 3)
    assert np.isfinite(found.lines).all()
    right = p.copy()
    right[1, :, 39] = p[1, :, 38]  # nothing beyond the border to interpolate with
    assert np.allclose(found.lines, right, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c, f, d: (c * np.nan, f, d), "data: 1600 NaN"),
        (lambda c, f, d: (c, f * np.inf, d), "flat field: 80 NaN or infinite"),
        (lambda c, f, d: (c, d, f), "no brighter than the dark field.*swapped"),
        (lambda c, f, d: (c * 0, f, d), "data: samples at or below the dark field: 100% of all"),
        (lambda c, f, d: (c, np.where(np.arange(40) < 15, 0, f), d), "dead elements: 38% of all"),
    ],
)
def test_bad_input(spoil, message: str) -> None:
    _, counts, flat, dark = case()
    with pytest.raises(ValueError, match=message):
        flat_field(*spoil(counts, flat, dark))


def test_a_view_without_beam_is_named() -> None:
    _, counts, flat, dark = case()
    counts[1, 2] = dark[1]
    with pytest.raises(ValueError, match="data: slice 1: no counts in view 2"):
        flat_field(counts, flat, dark)


@pytest.mark.parametrize("gain", [0.3, 7.0])
def test_photons_from_repeated_flats(gain: float) -> None:
    """Whatever the gain and however the beam drifts; the variance it predicts is that of the data."""
    rng = np.random.default_rng(1)
    i0, sigma = 3000.0, 20.0
    drift = 1 + 0.1 * rng.standard_normal((12, 1, 1))

    def read(mean: np.ndarray) -> np.ndarray:
        return 100 + gain * (rng.poisson(mean) + sigma * rng.standard_normal(mean.shape))

    darks, flats = read(np.zeros((12, 3, 400))), read(i0 * drift * np.ones((12, 3, 400)))
    noise = photons(flats, darks)
    assert noise.i0 == pytest.approx(i0, rel=0.1) and noise.sigma_e == pytest.approx(sigma, rel=0.1)
    p = -np.log((read(np.full((400, 3, 400), i0 * np.exp(-2.0))) - 100) / gain / i0)
    import torch

    expected = 1 / noise.weights(torch.tensor(2.0))
    assert float(expected) == pytest.approx(p.var(), rel=0.15)


def test_photons_are_not_guessed() -> None:
    """Too few flats, or flats without noise (averages, simulations), say nothing."""
    flats, darks = np.full((10, 2, 30), 1000.0), np.full((10, 2, 30), 10.0)
    assert photons(flats, darks) is None and photons(flats[:2], darks) is None
