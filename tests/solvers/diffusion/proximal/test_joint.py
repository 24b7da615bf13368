"""Image and artefact together: exact where both are Gaussian, artefacts found where there are some, none where not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from gaussian_problems import rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.artefact import KINDS, Artefact, rings, spikes, zipper
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.solvers.base import Solution
from medrecon.solvers.diffusion.base import DiffusionSolver, example_prior
from medrecon.solvers.diffusion.gradient.mmps import MMPS
from medrecon.solvers.diffusion.proximal.joint import Joint, jointly

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, NOISE, SCALE, SAMPLES = 8, 0.3, 1.0, 128


class Twin(NamedTuple):
    """A sum of two Gaussians: exact mean and deviation of the image and of the artefact."""

    prior: Prior
    artefact: Artefact
    A: LinearOperator
    y: Measurement
    image: tuple[Tensor, Tensor]
    h: tuple[Tensor, Tensor]


def matrix(A: LinearOperator) -> Tensor:
    basis = torch.eye(math.prod(A.in_shape)).reshape(-1, *A.in_shape).to(A.in_dtype)
    return A(basis).flatten(1).T.double()


@cache
def twin(kind: str) -> Twin:
    """Few views of a small Gaussian image and offsets of the elements, or zingers, as large as its projections."""
    prior, g = example_prior((SIZE, SIZE)), torch.Generator().manual_seed(0)
    angles = tuple(math.pi * k / 7 for k in range(7))
    A = CTOperator(ParallelGeometry(angles, 11, 1.0), ImageGrid((SIZE, SIZE), (1.0, 1.0)))
    oracle = prior.denoiser
    assert isinstance(oracle, GaussianPrior)
    W = (0.5 + torch.rand((1, *A.out_shape), generator=g)) / NOISE**2
    blank = KINDS[kind](A, Measurement(torch.zeros(1, *A.out_shape), W))
    h = SCALE * torch.randn((1, *blank.C.in_shape), generator=g)
    noise = torch.randn((1, *A.out_shape), generator=g) / W.sqrt()
    y = Measurement(A(oracle.sample(1, g)[:, 0]) + blank.C(h) + noise, W)
    both, root = torch.cat([matrix(A), matrix(blank.C)], 1), W.flatten().double().sqrt()
    n, count = SIZE**2, h.numel()
    covariance = torch.block_diag(oracle.covariance, SCALE**2 * torch.eye(count, dtype=torch.float64))
    pair = GaussianPrior(torch.cat([oracle.mean, torch.zeros(count, dtype=torch.float64)]), covariance, (1, 1, n + count))
    mean, cov = pair.posterior(root[:, None] * both, root * y.data.flatten(), 1.0)
    mean, deviation = mean.float(), cov.diag().sqrt().float()
    shaped = lambda v, of: v.reshape(of)  # noqa: E731
    square, places = (SIZE, SIZE), blank.C.in_shape
    image = shaped(mean[:n], square), shaped(deviation[:n], square)
    return Twin(prior, KINDS[kind](A, y), A, y, image, (shaped(mean[n:], places), shaped(deviation[n:], places)))


def solved(t: Twin, artefact: Artefact | None = None, scale: float = SCALE) -> Solution:
    method = MMPS(t.prior, steps=4, products=20, start=None, end=1e-3, samples=SAMPLES)
    g = torch.Generator().manual_seed(0)
    return jointly(method, artefact or t.artefact, t.A, t.y, generator=g, scale=scale)


def gaps(t: Twin, solution: Solution) -> list[float]:
    """Errors of the means over the posterior's deviation, and deviations over it, of the image and of the artefact."""
    told = solution.diagnostics
    found = ((solution.image[0], told["deviation"][0]), (told["artefact"][0], told["artefact_deviation"][0]))
    pairs = list(zip(found, (t.image, t.h), strict=True))
    return [rms(a[0] - b[0]) / rms(b[1]) for a, b in pairs] + [rms(a[1]) / rms(b[1]) for a, b in pairs]


def exact(found: list[float]) -> bool:
    """128 samples leave 0.09 to chance."""
    return max(found[:2]) < 0.15 and all(0.95 < ratio < 1.05 for ratio in found[2:])


@pytest.mark.parametrize("kind", ["rings", "spikes"])
def test_a_sum_of_two_gaussians_is_sampled_exactly(kind: str) -> None:
    t = twin(kind)
    found = gaps(t, solved(t))
    assert exact(found), found


class Mutant(Artefact):
    """Each is one thing wrong."""


class Ignored(Mutant):
    def marginal(self, A: LinearOperator, S: Tensor) -> tuple[LinearOperator, Measurement]:
        return super().marginal(A, 0 * S)


class Unshrunk(Mutant):
    def posterior(self, residual: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        return self.found(residual), super().posterior(residual, S)[1]


class Independent(Mutant):
    """Takes an offset for noise of its size, another in every view."""

    def marginal(self, A: LinearOperator, S: Tensor) -> tuple[LinearOperator, Measurement]:
        W = self.y.precision
        return A, Measurement(self.y.data, W / (1 + S[:, None] * W))


@pytest.mark.parametrize("mutant", [Ignored, Unshrunk, Independent])
def test_a_wrong_joint_model_fails(mutant: type[Artefact]) -> None:
    t = twin("rings")
    a = t.artefact
    found = gaps(t, solved(t, mutant(a.C, a.y, a.information, a.shared, a.dense)))
    assert not exact(found), found
