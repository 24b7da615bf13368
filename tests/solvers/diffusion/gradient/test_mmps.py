"""MMPS against the exact Gaussian posterior, where it is exact: mean and spread, few levels, broken variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian_problems import Problem, complex_pixels, folded_pixels, gap, pixels
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.core.measurement import Measurement
from medrecon.diffusion.latent import LatentSpace, Pullback
from medrecon.models.exact.gaussian import GaussianPrior
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.diffusion.base import Task
from medrecon.solvers.diffusion.gradient.mmps import MMPS, MMPSGuide

pytestmark = pytest.mark.usefixtures("one_thread")
NOISE: dict[str, Any] = {"start": None, "end": 1e-3, "samples": 128}
"""128 samples leave 0.09 of the mean to chance"""
FEW: dict[str, Any] = {"steps": 4, "products": 20, **NOISE}


def exact(found: tuple[float, float]) -> bool:
    return found[0] < 0.15 and 0.95 < found[1] < 1.05


def several_coils() -> Problem:
    """Complex pixels seen by three coils, half of k-space."""
    plain, g = complex_pixels(), torch.Generator().manual_seed(0)
    prior, shape, noise = plain.prior, (12, 12), 0.3
    oracle = prior.denoiser
    assert isinstance(oracle, GaussianPrior)
    A = CartesianMRI(birdcage_maps(3, shape, g), (torch.rand(shape, generator=g) < 0.5).float())
    noises = torch.randn((1, *A.out_shape), dtype=torch.complex64, generator=g)
    data = A(prior.decode(oracle.sample(1, g), shape)) + noise * A.mask * noises
    parts = lambda k: torch.view_as_real(k).flatten(1)  # noqa: E731
    dense = parts(A(prior.decode(torch.eye(288).reshape(288, 2, 12, 12), shape))).T
    mean, cov = oracle.posterior(dense, parts(data)[0], noise / 2**0.5)
    deviation = cov.diag().reshape(2, *shape).sum(0).sqrt()
    y = Measurement(data, (A.mask / noise**2).expand(1, *A.out_shape))
    return Problem(prior, A, y, torch.complex(*mean.float().reshape(2, *shape)), deviation)


@pytest.mark.parametrize("problem", [pixels, complex_pixels, folded_pixels, several_coils])
def test_a_few_levels_sample_the_posterior(problem: Callable[[], Problem]) -> None:
    found = gap(MMPS(problem().prior, **FEW), problem())
    assert exact(found), found


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 1.0), ("ancestral", 1.0)])
def test_samples_serve_other_samplers(sampler: str, eta: float) -> None:
    found = gap(MMPS(pixels().prior, sampler=sampler, eta=eta, **FEW), pixels())
    assert exact(found), found


@pytest.mark.parametrize(("sampler", "eta", "steps"), [("ddim", 0.0, 50), ("heun", 0.0, 20), ("multistep", 0.0, 30)])
def test_without_draws_the_mean_serves_the_samplers_of_estimates(sampler: str, eta: float, steps: int) -> None:
    found = gap(
        MMPS(pixels().prior, steps=steps, sampler=sampler, eta=eta, draws=False, **{**NOISE, "samples": 64}), pixels()
    )
    assert found[0] < 0.25 and 0.9 < found[1] < 1.1, found


class OfJacobian(LatentSpace):
    """A latent space whose denoiser tells another covariance than its own."""

    def __init__(self, space: LatentSpace, change: Callable[[Tensor, float, Pullback], Tensor]) -> None:
        vars(self).update(vars(space))
        self.changed = change

    def denoised(self, z: Tensor, sigma: float) -> tuple[Tensor, Pullback]:
        clean, through = super().denoised(z, sigma)
        return clean, lambda v: self.changed(v, sigma, through)


@pytest.mark.parametrize(
    "change",
    [
        lambda v, sigma, through: v / (1 + sigma**2),  # white
        lambda v, sigma, through: 0.5 * through(v),
        lambda v, sigma, through: through(through(v)),
    ],
)
def test_another_covariance_fails(change: Callable[[Tensor, float, Pullback], Tensor]) -> None:
    class Mutant(MMPS):
        def guide(self, task: Task) -> MMPSGuide:
            return replace(super().guide(task), space=OfJacobian(task.space, change))

    found = gap(Mutant(pixels().prior, **FEW), pixels())
    assert not exact(found), found


def test_the_mean_in_place_of_a_draw_loses_the_spread() -> None:
    class Mutant(MMPS):
        def guide(self, task: Task) -> MMPSGuide:
            return replace(super().guide(task), draw=None)

    found = gap(Mutant(pixels().prior, **FEW), pixels())
    assert found[1] < 0.8, found


def test_settings_that_do_not_go_together_are_refused() -> None:
    prior = pixels().prior
    with pytest.raises(ValueError, match="products >= 1"):
        MMPS(prior, products=0)
    with pytest.raises(ValueError, match="does not go on from samples"):
        MMPS(prior, sampler="heun", eta=0.0)
    with pytest.raises(ValueError, match="does not go on from estimates"):
        MMPS(prior, draws=False)
    assert MMPS.paper(prior).products == 3
