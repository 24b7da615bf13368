"""Derivatives of a denoiser against those of the exact one: J = C (C + sigma^2 I)^-1, wherever it is taken."""

import pytest
import torch

from medrecon.diffusion.derivatives import denoise, jvp, vjp
from medrecon.models.exact.gaussian import smooth_gaussian


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_both_derivatives_are_the_matrix_of_the_exact_denoiser(sigma: float, generator: torch.Generator) -> None:
    prior = smooth_gaussian((1, 3, 4))
    z, v = torch.randn(2, 5, 1, 3, 4, dtype=torch.float64, generator=generator)
    eye = torch.eye(12, dtype=torch.float64)
    expected = (v.flatten(1) @ torch.linalg.solve(prior.covariance + sigma**2 * eye, prior.covariance)).reshape(v.shape)
    torch.testing.assert_close(jvp(prior, z, sigma, v), expected)
    out, product = vjp(prior, z, sigma, v)
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(out, prior(z, torch.tensor(sigma)))
    assert not out.requires_grad and not product.requires_grad


def test_levels_outside_of_what_the_denoiser_knows_are_taken_to_its_ends(generator: torch.Generator) -> None:
    prior = smooth_gaussian((1, 3, 4))
    z = torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=generator)
    for sigma, level in ((1e-9, prior.sigma_min), (1e9, prior.sigma_max), (1.5, 1.5)):
        torch.testing.assert_close(
            denoise(prior, z, sigma), prior(z, torch.tensor(level, dtype=torch.float64)), rtol=0, atol=0
        )
