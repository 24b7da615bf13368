"""DDIM against its paper, written in the paper's own variance-preserving terms (arXiv 2010.02502, eq. 12 and 16)."""

import math

import pytest
import torch

from medrecon.diffusion.reverse import sample
from medrecon.diffusion.samplers.ddim import DDIM


class Known:
    """The denoiser of one image that is known, `value` everywhere."""

    sigma_min, sigma_max = 1e-3, 100.0

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.full_like(z, self.value)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.85, 1.0])
@pytest.mark.parametrize(("now", "then"), [(0.2, 0.6), (0.7, 0.75), (0.05, 0.9)])
def test_a_step_is_that_of_the_paper(eta: float, now: float, then: float, generator: torch.Generator) -> None:
    """x' = sqrt(a') x0 + sqrt(1 - a' - s^2) e + s n, s = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a'); a is the
    paper's alpha_t, x = sqrt(a) z. Fresh noise and what is kept are told apart: e is the same everywhere."""
    x0, e = 0.4, 1.3
    z = torch.full((1, 1, 500, 400), x0 + math.sqrt((1 - now) / now) * e, dtype=torch.float64)
    sigmas = torch.tensor([math.sqrt((1 - a) / a) for a in (now, then)], dtype=torch.float64)
    x = math.sqrt(then) * sample(Known(x0), DDIM(eta), z, sigmas, generator)
    fresh = eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now / then)
    mean = math.sqrt(then) * x0 + math.sqrt(1 - then - fresh**2) * e
    assert float(x.std()) == pytest.approx(fresh, rel=0.01, abs=1e-12)
    assert float(x.mean()) == pytest.approx(mean, abs=0.01 * fresh + 1e-9)
