"""Problems with a known posterior for diffusion solvers."""

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.models.prior import Prior
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.diffusion.base import example_prior


def inpainting(size: int = 16, noise: float = 0.05) -> tuple[Prior, Diagonal, Measurement, Tensor, Tensor]:
    """A 40 % mask, one truth from the prior, its exact posterior mean and standard deviation, each (size, size)."""
    prior = example_prior((size, size))
    oracle = prior.denoiser
    g = torch.Generator().manual_seed(0)
    mask = (torch.rand(size, size, generator=g) < 0.4).float()
    truth = oracle.sample(1, g)[:, 0]
    data = mask * (truth + noise * torch.randn(truth.shape, generator=g))
    seen = mask.flatten().bool()
    mean, cov = oracle.posterior(torch.eye(size * size)[seen], data.flatten()[seen], noise)
    y = Measurement(data, (mask / noise**2)[None])
    return prior, Diagonal(mask), y, mean.reshape(size, size), cov.diag().sqrt().reshape(size, size)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
