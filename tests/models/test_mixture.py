"""The mixture of stationary Gaussians against dense linear algebra, and what fitting one finds."""

import pytest
import torch

from medrecon.models.exact.gaussian import GaussianPrior
from medrecon.models.exact.mixture import StationaryMixture, fit_mixture

SHAPE = (2, 8, 8)
N = 128
pytestmark = pytest.mark.usefixtures("one_thread")


def spectra(count, g):
    """Hermitian densities (count, 8, 8, 2, 2) of real fields, smooth in space, channels correlated."""
    f = torch.fft.fftfreq(8, dtype=torch.float64)
    power = torch.exp(-8 * (f[:, None].square() + f.square()))[None] * torch.linspace(0.5, 1.5, count).view(-1, 1, 1)
    mixing = torch.randn(count, 2, 2, generator=g, dtype=torch.float64)
    mixing = (mixing @ mixing.mT + 0.1 * torch.eye(2))[:, None, None]
    lag = torch.polar(torch.ones(8, dtype=torch.float64), 2 * torch.pi * f)  # the second channel is shifted by a pixel
    shift = torch.diag_embed(torch.stack([torch.ones_like(lag), lag], -1))[None, None]
    shift = torch.where((torch.arange(8) == 4).view(1, 1, 8, 1, 1), torch.eye(2), shift)  # Nyquist stays real
    return 0.3 * power[..., None, None] * (shift @ mixing.to(shift.dtype) @ shift.mH) + 0.02 * torch.eye(2)


def known(g, apart=1.0):
    means = torch.randn(3, *SHAPE, generator=g, dtype=torch.float64)
    means = apart * torch.nn.functional.avg_pool2d(means, 5, 1, 2)
    return StationaryMixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, spectra(3, g)[:, :, :5])


def dense(mixture):
    """The same components with covariance matrices, from how the spectrum acts on unit vectors."""
    units = torch.fft.rfft2(torch.eye(N, dtype=torch.float64).view(N, *SHAPE), norm="ortho").movedim(1, -1)
    found = []
    for mean, spectrum in zip(mixture.means, mixture.spectra, strict=True):
        columns = (spectrum @ units[..., None])[..., 0].movedim(-1, 1)
        covariance = torch.fft.irfft2(columns, s=SHAPE[1:], norm="ortho").flatten(1)
        assert torch.allclose(covariance, covariance.T)
        found.append(GaussianPrior(mean.flatten(), (covariance + covariance.T) / 2, SHAPE))
    return found


def draw(mixture, count, g):
    which = torch.multinomial(mixture.weights, count, replacement=True, generator=g)
    each = torch.stack([component.sample(count, g) for component in dense(mixture)])
    return each[which, torch.arange(count)], which


def mse(denoiser, z0, sigma, seed=5):
    z = z0 + sigma * torch.randn(z0.shape, generator=torch.Generator().manual_seed(seed))
    return float((denoiser(z, torch.tensor(sigma)) - z0).double().square().mean())


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_it_is_the_mixture_of_dense_gaussians(generator, sigma):
    """Bayes' rule written with covariance matrices: density, responsibilities and posterior mean."""
    mixture = known(generator, apart=0.3)
    z = draw(mixture, 6, generator)[0] + sigma * torch.randn(6, *SHAPE, generator=generator)
    parts = dense(mixture)
    laws = [torch.distributions.MultivariateNormal(p.mean, p.covariance + sigma**2 * torch.eye(N)) for p in parts]
    joint = torch.stack([law.log_prob(z.double().flatten(1)) for law in laws], 1) + mixture.weights.log()
    shares = joint.softmax(1)
    exact = sum(s.view(-1, 1, 1, 1) * p(z.double(), sigma) for s, p in zip(shares.T, parts, strict=True))
    assert torch.allclose(mixture.log_density(z, sigma), joint.logsumexp(1), rtol=1e-9)
    assert torch.allclose(mixture.responsibilities(z, sigma), shares, atol=1e-7)
    assert torch.allclose(mixture(z.double(), torch.full((6,), sigma)), exact, atol=1e-6)


def test_its_error_is_the_bayes_error_by_tweedie(generator):
    """E|D - z0|^2 = sigma^2 E tr J holds for the posterior mean alone; not with responsibilities ignored."""
    mixture, sigma = known(generator, apart=0.3), 1.0
    z0 = draw(mixture, 600, generator)[0]
    z = z0 + sigma * torch.randn(z0.shape, generator=generator)
    probe = torch.randint(0, 2, z.shape, generator=generator).to(z) * 2 - 1

    def surprise(denoiser):
        estimate, slope = torch.func.jvp(lambda x: denoiser(x, torch.tensor(sigma)), (z,), (probe,))
        return float((estimate - z0).square().sum() / (sigma**2 * (probe * slope).sum()))

    flat = StationaryMixture(torch.tensor([1.0]), mixture.means[:1], mixture.spectra[:1])
    assert surprise(mixture) == pytest.approx(1.0, abs=0.04)
    assert surprise(flat) > 1.1


def test_fitted_to_samples_it_comes_near_the_bayes_error_and_one_component_does_not(generator):
    truth = known(generator)
    train, test = draw(truth, 1500, generator)[0], draw(truth, 300, generator)[0]
    fits = [fit_mixture(train, 3, torch.Generator().manual_seed(k)) for k in range(4)]
    fitted = max(fits, key=lambda fit: float(fit.log_density(train, 0.3).mean()))  # EM ends at some local optimum
    single = fit_mixture(train, 1, torch.Generator().manual_seed(0))
    assert sorted(fitted.weights.tolist()) == pytest.approx([0.2, 0.3, 0.5], abs=0.05)
    for sigma in (0.3, 1.0, 4.0):
        bayes = mse(truth, test, sigma)
        assert 0.98 * bayes < mse(fitted, test, sigma) < 1.1 * bayes
        assert sigma > 1 or mse(single, test, sigma) > 1.08 * bayes  # at sigma = 4 the means drown


def test_more_components_than_kinds_of_slices_do_no_harm_and_another_size_is_refused(generator):
    z = torch.randn(20, *SHAPE, generator=generator)
    assert len(fit_mixture(z[:4].repeat(5, 1, 1, 1), 8, generator).weights) <= 4
    with pytest.raises(ValueError, match="fitted to"):
        fit_mixture(z, 2, generator)(torch.zeros(1, 2, 8, 6), torch.tensor(1.0))
