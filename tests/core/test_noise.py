"""Noise models against their theory; HU."""

import math

import pytest
import torch

from medrecon.core.noise import CTNoise, MRINoise
from medrecon.core.units import MU_WATER, hu_to_mu, mu_to_hu, water_calibration


@pytest.mark.parametrize(("i0", "sigma_e"), [(1e3, 0.0), (1e4, 0.0), (1e5, 0.0), (1e4, 10.0), (1e5, 30.0)])
def test_ct_mean_and_variance(i0: float, sigma_e: float, generator: torch.Generator) -> None:
    """Delta method: variance (N + sigma_e^2) / N^2, mean p + variance / 2, to second order in 1 / N."""
    noise, p = CTNoise(i0, sigma_e), torch.tensor([0.0, 1.0, 2.0])
    draws = noise.simulate(p.expand(100_000, 3), generator).double()
    counts = i0 * torch.exp(-p.double())
    variance = (counts + sigma_e**2) / counts**2
    assert torch.allclose(draws.var(0) / variance, torch.ones(3).double(), rtol=0.02 + 4 / float(counts.min()))
    error = (draws.mean(0) - p - variance / 2).abs()
    assert bool((error < 4 * (variance / 1e5).sqrt() + 3 * variance**2).all())
    assert torch.allclose(noise.weights(p).double(), 1 / variance, rtol=1e-4)


def test_ct_input_stays_and_seed_decides() -> None:
    p = torch.full((20, 30), 1.5)
    before = p.clone()
    a, b = (CTNoise(1e4, 5.0).simulate(p, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(p, before) and torch.equal(a, b) and a.dtype == p.dtype
    assert not torch.equal(a, CTNoise(1e4, 5.0).simulate(p, torch.Generator().manual_seed(4)))


def test_ct_dose_is_physical(generator: torch.Generator) -> None:
    """The dose is i0 alone: twice the line integral is not brought back to the same counts."""
    thin, thick = (CTNoise(1e4).simulate(torch.full((50_000,), p), generator).std() for p in (1.0, 2.0))
    assert float(thick / thin) == pytest.approx(math.exp(0.5), rel=0.03)


def test_ct_starved_rays_are_finite(generator: torch.Generator) -> None:
    noise = CTNoise(1e3, 20.0)
    p_hat = noise.simulate(torch.full((1000,), 30.0), generator)
    assert bool(torch.isfinite(p_hat).all()) and float(p_hat.max()) <= math.log(1e3) + 1e-5
    precision = noise.precision(torch.tensor([-0.5, 0.0, 30.0]))
    assert bool(torch.isfinite(precision).all() and (precision >= 0).all())


def test_ct_precision_adds_the_model_error() -> None:
    p = torch.tensor([0.0, 2.0, 5.0])
    noise = CTNoise(1e5, 10.0, model_absolute=0.02, model_relative=0.01)
    expected = 1 / noise.weights(p) + (0.02 + 0.01 * p) ** 2
    assert torch.allclose(1 / noise.precision(p), expected)
    assert torch.allclose(CTNoise(1e5, 10.0, 0.0, 0.0).precision(p), noise.weights(p))


def test_ct_photons_of_each_view(generator: torch.Generator) -> None:
    """(V, 1), (Z, V, 1), (D,) and (V, D) broadcast: each view has the statistics of its own i0."""
    i0 = torch.tensor([1e3, 1e4, 1e5])
    p = torch.full((2, 3, 20_000), 1.0)
    noise = CTNoise(i0[:, None], 5.0)
    drawn = noise.simulate(p, generator)
    for view, photons in enumerate(i0.tolist()):
        single = CTNoise(photons, 5.0)
        assert float(drawn[:, view].var() * single.weights(p[0, 0, :1])) == pytest.approx(1, abs=0.03)
        assert torch.allclose(noise.precision(p)[:, view], single.precision(p[:, view]))
    assert torch.allclose(noise.weights(p)[1], noise.weights(p[1]))
    small = torch.full((2, 3, 4), 1.0)
    for shape in ((3, 1), (2, 3, 1), (4,), (3, 4), (2, 3, 4), ()):
        flat = CTNoise(torch.full(shape, 1e4)).precision(small)
        assert flat.shape == small.shape and torch.allclose(flat, CTNoise(1e4).precision(small))
    for shape in ((3,), (2, 1), (5, 2, 3, 4)):
        with pytest.raises(ValueError, match="does not broadcast"):
            CTNoise(torch.full(shape, 1e4)).weights(small)


def test_mri_covariance(generator: torch.Generator) -> None:
    root = torch.randn(4, 4, dtype=torch.complex128, generator=generator)
    covariance = root @ root.mH + 0.1 * torch.eye(4)
    noise, mask = MRINoise(covariance), torch.ones(400, 400)
    drawn = noise.simulate(torch.zeros(4, 400, 400, dtype=torch.complex64), mask, generator).reshape(4, -1)
    measured = (drawn @ drawn.mH / drawn.shape[1]).to(torch.complex128)
    assert float((measured - covariance).norm() / covariance.norm()) < 0.02
    white = noise.whitening() @ drawn
    assert float((white @ white.mH / white.shape[1] - torch.eye(4)).norm()) < 0.03
    assert float((drawn @ drawn.mT / drawn.shape[1]).norm() / covariance.norm()) < 0.02  # circular: E[n n^T] = 0
    exact = noise.whitening().to(torch.complex128)
    assert torch.allclose(exact @ covariance @ exact.mH, torch.eye(4, dtype=torch.complex128), atol=1e-4)
    assert torch.allclose(exact, exact.tril())


def test_mri_sigma_and_mask(generator: torch.Generator) -> None:
    noise, mask = MRINoise(0.5), torch.zeros(64, 64)
    mask[:, ::2] = 1
    kspace = torch.full((3, 2, 64, 64), 1 + 2j)
    drawn = noise.simulate(kspace, mask, generator)
    assert bool((drawn[..., 1::2] == 0).all()) and bool((kspace == 1 + 2j).all())
    assert float((drawn - kspace)[..., ::2].abs().square().mean()) == pytest.approx(0.25, rel=0.05)
    assert torch.allclose(noise.whitening(2), 2 * torch.eye(2, dtype=torch.complex64))
    precision = noise.precision(mask, 2)
    assert precision.shape == (2, 64, 64) and float(precision.max()) == pytest.approx(4.0)
    assert bool((precision[..., 1::2] == 0).all())
    with pytest.raises(ValueError, match="how many coils"):
        noise.whitening()


def test_mri_precision_is_per_coil() -> None:
    covariance = torch.diag(torch.tensor([1.0, 4.0])).to(torch.complex64)
    assert MRINoise(covariance).precision(torch.ones(3, 5), 2)[:, 0, 0].tolist() == pytest.approx([1.0, 0.25])
    with pytest.raises(ValueError, match="2 coils"):
        MRINoise(covariance).precision(torch.ones(3, 5), 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CTNoise(0.0), "i0"),
        (lambda: CTNoise(torch.tensor([[1e4], [0.0]])), "i0"),
        (lambda: CTNoise(torch.tensor([[1e4], [math.nan]])), "i0"),
        (lambda: CTNoise(torch.zeros(0, 1)), "i0"),
        (lambda: CTNoise(1e4, -1.0), "sigma_e"),
        (lambda: CTNoise(1e4, 0.0, math.nan), "model_absolute"),
        (lambda: MRINoise(0.0), "sigma"),
        (lambda: MRINoise(torch.ones(2, 3)), "Hermitian"),
        (lambda: MRINoise(torch.tensor([[1.0, 1j], [1j, 1.0]])), "Hermitian"),
        (lambda: MRINoise(torch.ones(2, 2)), "positive definite"),
    ],
)
def test_bad_noise_is_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_hounsfield_units() -> None:
    hu = torch.tensor([-1000.0, 0.0, 1000.0])
    assert hu_to_mu(hu).tolist() == pytest.approx([0.0, MU_WATER, 2 * MU_WATER])
    assert torch.allclose(mu_to_hu(hu_to_mu(hu)), hu, atol=1e-3)
    assert float(hu_to_mu(torch.tensor(-2000.0))) == 0.0  # padding is not negative matter
    assert float(mu_to_hu(torch.tensor(0.02), mu_water=0.02)) == pytest.approx(0.0, abs=1e-4)


def test_water_calibration(generator: torch.Generator) -> None:
    """A scanner with an offset and another energy: one point makes water 0 HU, two make air -1000 HU as well."""
    water, air = torch.zeros(32, 32, dtype=torch.bool), torch.zeros(32, 32, dtype=torch.bool)
    water[10:20, 10:20], air[:4] = True, True
    mu = torch.full((2, 32, 32), 0.0003)
    mu[:, 8:22, 8:22] = 0.0206
    mu = mu + 1e-5 * torch.randn(mu.shape, generator=generator)
    mu_water, mu_air = water_calibration(mu, water, air)
    hu = mu_to_hu(mu, mu_water, mu_air)
    assert abs(float(hu[:, water].mean())) < 1e-2 and abs(float(hu[:, air].mean()) + 1000) < 1e-2
    one = mu_to_hu(mu, *water_calibration(mu, water))
    assert abs(float(one[:, water].mean())) < 1e-2 and float(one[:, air].mean()) > -990
    with pytest.raises(ValueError, match="region of air is empty"):
        water_calibration(mu, water, torch.zeros_like(air))
    with pytest.raises(ValueError, match="1/mm"):
        water_calibration(mu, air, water)


def test_noise_is_read_off_the_outer_tenth(generator: torch.Generator) -> None:
    """White noise of 0.3, an object in the inner 85 %, and places that were not measured."""
    axis = torch.linspace(-1, 1, 128)
    radius = (axis[:, None].square() + axis.square()).sqrt()
    kspace = 0.3 * torch.randn(2, 3, 128, 128, dtype=torch.complex64, generator=generator)
    kspace += 100.0 * (radius < 1)
    assert float((radius < 1).float().mean()) < 0.85
    radius[:, :18] = -1.0
    kspace[..., :18] = 0
    found = MRINoise.of_outer_samples(kspace, radius).covariance
    assert float(found) == pytest.approx(0.3, rel=0.03)
    with pytest.raises(ValueError, match="outer k-space of this scan is 0"):
        MRINoise.of_outer_samples(kspace * (radius < 1), radius)


@pytest.mark.parametrize("shape", [(3, 40, 500), (3, 10, 6, 400)])
def test_unknown_photons_are_replaced_by_the_level_of_each_item(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    """A smooth object hardly shows in second differences along the detector; the level is one number an item."""
    level = torch.tensor([0.01, 0.05, 0.2]).reshape(3, *(1,) * (len(shape) - 1))
    p = 3 * torch.linspace(0, math.pi, shape[-1]).sin() + level * torch.randn(shape, generator=generator)
    precision = CTNoise(None, model_absolute=0.0, model_relative=0.0).precision(p)
    torch.testing.assert_close(precision, (level**-2).expand_as(precision), rtol=0.05, atol=0)
    with_model = CTNoise(None, model_absolute=0.1, model_relative=0.0).precision(p)
    torch.testing.assert_close(1 / with_model, 1 / precision + 0.01)


@pytest.mark.parametrize("i0", [0.0, -1.0, 1e16, 1e300, float("inf"), float("nan")])
def test_photons_that_no_scanner_has_are_refused(i0: float) -> None:
    """Above, counts overflow, and an image would be drawn of the rubbish."""
    with pytest.raises(ValueError, match="noise/i0"):
        CTNoise(i0, 0.0)
    assert CTNoise(1e15, 0.0).simulate(torch.ones(1, 3, 4), torch.Generator()).isfinite().all()
