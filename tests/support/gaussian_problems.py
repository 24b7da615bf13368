"""Problems with a known posterior for diffusion solvers."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder, smooth_gaussian
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.posterior import PosteriorSolver


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


class Problem(NamedTuple):
    prior: Prior
    A: LinearOperator
    y: Measurement
    mean: Tensor
    deviation: Tensor


@cache
def pixels() -> Problem:
    return Problem(*inpainting())


@cache
def complex_pixels(size: int = 12, noise: float = 0.1) -> Problem:
    """Complex images behind a mask with phases; E|n|^2 = noise^2, half of it in each part."""
    denoiser = smooth_gaussian((2, size, size))
    prior = Prior(IdentityAutoencoder(complex=True), denoiser, Linear(-1.0, 1.0), "a.u.", "MR", error=0.0)
    g = torch.Generator().manual_seed(1)
    mask = (torch.rand(size, size, generator=g) < 0.4).float()
    A = Diagonal(mask * torch.polar(torch.ones(size, size), 6 * torch.rand(size, size, generator=g)))
    n = torch.randn(1, size, size, dtype=torch.complex64, generator=g)
    data = A(prior.decode(denoiser.sample(1, g), (size, size))) + noise * mask * n
    parts = torch.cat([mask.flatten(), mask.flatten()]).bool()
    turned = torch.view_as_real(data / torch.where(mask > 0, A.diagonal, 1)).permute(3, 0, 1, 2).flatten()
    mean, cov = denoiser.posterior(torch.eye(2 * size**2)[parts], turned[parts], noise / 2**0.5)
    deviation = cov.diag().reshape(2, size, size).sum(0).sqrt()
    exact = torch.complex(*mean.float().reshape(2, size, size))
    return Problem(prior, A, Measurement(data, (mask / noise**2)[None]), exact, deviation)


@cache
def folded_pixels() -> Problem:
    """The pixels of `pixels` folded into the channels of a latent: orthogonal, so that the posterior is the same."""
    plain, space = pixels(), PixelSpace(2)
    exact = plain.prior.denoiser
    assert isinstance(exact, GaussianPrior)
    fold = torch.stack([space.encode(u[None])[0].flatten() for u in torch.eye(256).reshape(256, 16, 16)], 1).double()
    denoiser = GaussianPrior(fold @ exact.mean, fold @ exact.covariance @ fold.T, (4, 8, 8))
    return plain._replace(prior=replace(plain.prior, autoencoder=space, denoiser=denoiser))


def gap(solver: PosteriorSolver, problem: Problem) -> tuple[float, float]:
    """Error of the mean, and the samples' deviation, over the posterior's."""
    solution = solver(problem.A, problem.y, generator=torch.Generator().manual_seed(0))
    scale = rms(problem.deviation)
    return rms((solution.image[0] - problem.mean).abs()) / scale, rms(solution.diagnostics["deviation"][0]) / scale
