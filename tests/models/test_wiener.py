"""The Wiener filter: the exact denoiser of the stationary Gaussian of the latents."""

import pytest
import torch

from medrecon.models.exact.wiener import Wiener


def correlated_latents(count, generator):
    """Draws of a stationary Gaussian on 16 x 16 whose two channels are correlated, and shifted against each other."""
    shape = torch.fft.fftfreq(16)[:, None].abs() + torch.fft.fftfreq(16).abs()
    power = 8 * torch.exp(-8 * shape) + 0.05
    noise = torch.randn(count, 2, 16, 16, generator=generator)
    first, second = torch.fft.ifft2(torch.fft.fft2(noise) * power.sqrt()).real.unbind(1)
    return torch.stack([first, 0.9 * first.roll(1, -1) + 0.4 * second], 1) + 0.3


def test_wiener_filter_is_the_exact_denoiser_of_its_gaussian(generator):
    """It reaches the error it claims, less than that of channels taken one by one, at any latent size."""
    latents = correlated_latents(4000, generator)
    wiener, single = Wiener(2, 16), Wiener(2, 16)
    for net in (wiener, single):
        net.fit(latents)
    single.spectrum[:, 1] = 0  # the only pair of two channels
    sigma = torch.full((len(latents),), 0.7)
    noisy = latents + 0.7 * torch.randn(latents.shape, generator=generator)
    estimate, error = wiener(noisy, sigma)
    measured = float((estimate - latents).square().mean().sqrt())
    assert measured == pytest.approx(float(error[0]), rel=0.02)
    assert measured < 0.9 * float((single(noisy, sigma)[0] - latents).square().mean().sqrt())
    wide = wiener.density((32, 32))
    assert torch.allclose(wide[..., ::2, ::2], wiener.whole(), rtol=1e-4, atol=1e-6)


def test_a_spectrum_of_fewer_frequencies_is_nearly_the_same_filter(generator):
    latents = correlated_latents(400, generator)
    whole, fewer = Wiener(2, 16), Wiener(2, 12)
    for net in (whole, fewer):
        net.fit(latents)
    assert fewer.spectrum.shape[-2:] == (12, 7)
    sigma = torch.full((len(latents),), 0.7)
    noisy = latents + 0.7 * torch.randn(latents.shape, generator=generator)
    best, near = (float((net(noisy, sigma)[0] - latents).square().mean()) for net in (whole, fewer))
    flat = float((Wiener(2, 16)(noisy, sigma)[0] - latents).square().mean())
    assert best < near < 1.02 * best < flat


def test_wiener_filter_follows_new_weights(generator):
    """The eigenvectors kept between calls belong to the spectrum that is loaded."""
    wiener, other = Wiener(2, 16), Wiener(2, 16)
    wiener.fit(correlated_latents(50, generator))
    z, sigma = torch.randn(1, 2, 16, 16, generator=generator), torch.ones(1)
    other(z, sigma)
    other.load_state_dict(wiener.state_dict())
    assert torch.equal(other(z, sigma)[0], wiener(z, sigma)[0])


@pytest.mark.parametrize("grid", [7, 8])
def test_half_the_spectrum_holds_all_of_it(grid, generator):
    """Kept once a pair and for half the frequencies, it is that of all pairs and frequencies."""
    latents = torch.randn(20, 3, grid, grid, generator=generator).cumsum(-1).cumsum(1)
    wiener = Wiener(3, grid)
    wiener.fit(latents)
    f = torch.fft.fft2(latents - wiener.mean, norm="ortho")
    whole = torch.einsum("nahw,nbhw->abhw", f, f.conj()).flatten(0, 1) / len(latents)
    torch.testing.assert_close(torch.complex(*wiener.whole()), whole, rtol=1e-4, atol=1e-3)
    assert wiener.spectrum.numel() < 0.45 * 2 * whole.numel()
