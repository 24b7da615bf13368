"""Learned solvers that return a point, against the exact mean of a Gaussian posterior; and faults of networks.

Errors are relative to the posterior's deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from gaussian_problems import Problem, complex_pixels, folded_pixels, inpainting, pixels, rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.adapters.function import FunctionDenoiser
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.base import Solver
from medrecon.solvers.diffusion.gradient.dps import DPS
from medrecon.solvers.diffusion.gradient.mmps import MMPS
from medrecon.solvers.diffusion.proximal.flowchef import FlowChef
from medrecon.solvers.plug_and_play.base import Bench, Images
from medrecon.solvers.plug_and_play.dpir import DPIR
from medrecon.solvers.plug_and_play.pnp_admm import PnPADMM
from medrecon.solvers.plug_and_play.pnp_fbs import PnPFBS
from medrecon.solvers.plug_and_play.red import RED
from medrecon.solvers.plug_and_play.red_diff import REDDiff

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[[Prior], Solver]
RUNS: dict[str, tuple[Make, float]] = {
    "red-diff": (lambda prior: REDDiff(prior, start=None, steps=400, rate=0.1, end=0.05), 0.42),
    "pnp-admm": (lambda prior: PnPADMM(prior, iterations=200), 0.03),
    "pnp-fbs": (lambda prior: PnPFBS(prior, sigma=0.3), 0.03),
    "red": (lambda prior: RED(prior, sigma=0.3), 0.2),
    "dpir": (lambda prior: DPIR(prior), 0.45),
}


@cache
def noisy() -> Problem:
    """Half as much noise as there is image, so that the prior has a say."""
    return Problem(*inpainting(noise=0.5))


@cache
def noisy_complex() -> Problem:
    return complex_pixels(noise=0.7)


def solved(solver: Solver, problem: Problem) -> Tensor:
    return solver(problem.A, problem.y, generator=torch.Generator().manual_seed(0)).image[0]


def error(solver: Solver, problem: Problem) -> float:
    return rms((solved(solver, problem) - problem.mean).abs()) / rms(problem.deviation)


@pytest.mark.parametrize("problem", [noisy, noisy_complex])
@pytest.mark.parametrize("name", RUNS)
def test_near_the_posterior_mean(name: str, problem: Callable[[], Problem]) -> None:
    make, bound = RUNS[name]
    found = error(make(problem().prior), problem())
    assert found < bound


def test_a_level_that_falls_leaves_admm_where_it_is() -> None:
    """At the most probable image the multiplier is the prior's gradient; u, sigma^2 times that, follows sigma."""
    problem = noisy()
    space = LatentSpace(problem.prior, problem.A, problem.y)
    bench = Bench(space, DataConsistency(problem.A, problem.y, iterations=100, tolerance=1e-7))
    solver = PnPADMM(problem.prior, iterations=2, high=1.0, sigma=0.2)
    images: Images = solver.start(bench, torch.zeros(1, 16, 16))
    for _ in range(300):
        images = solver.advance(bench, images, 0)
    moved = solver.advance(bench, images, 1)[0] - images[0]
    assert rms(images[0][0] - problem.mean) < 0.01 * rms(problem.deviation)
    assert rms(moved) < 0.01 * rms(problem.deviation)
    with pytest.raises(ValueError, match="expected high from sigma"):
        PnPADMM(problem.prior, high=0.1, sigma=0.2)


@pytest.mark.parametrize("name", ["pnp-admm", "red", "dpir"])
def test_a_latent_is_as_good_as_pixels(name: str) -> None:
    make, _ = RUNS[name]
    torch.testing.assert_close(
        solved(make(folded_pixels().prior), folded_pixels()), solved(make(pixels().prior), pixels()), atol=1e-3, rtol=0
    )


def test_red_ends_at_the_mean_for_the_blurred_prior() -> None:
    """The score of N(m, C + sigma^2) in place of that of N(m, C)."""
    problem, sigma = pixels(), 0.3
    exact = problem.prior.denoiser
    assert isinstance(exact, GaussianPrior)
    blurred = replace(exact, covariance=exact.covariance + sigma**2 * torch.eye(256))
    seen = problem.y.precision.flatten() > 0
    mean, _ = blurred.posterior(torch.eye(256)[seen], problem.y.data.flatten()[seen], 0.05)
    image = solved(RED(problem.prior, sigma=sigma, iterations=200, tolerance=1e-6), problem)
    torch.testing.assert_close(image, mean.reshape(16, 16).float(), atol=1e-3, rtol=0)


class Careless(Bench):
    """Takes the data to be twice as sure as they are."""

    def prox(self, v: Tensor, sigma: float) -> Tensor:
        return super().prox(v, 2**0.5 * sigma)

    def descended(self, x: Tensor, length: Tensor) -> Tensor:
        return super().descended(x, 2 * length)


def with_careless(cls: Any) -> Any:
    class Mutant(cls):
        def advance(self, bench: Bench, images: Images, index: int) -> Images:
            other = object.__new__(Careless)
            vars(other).update(vars(bench))
            return super().advance(other, images, index)  # type: ignore[no-any-return]

    return Mutant


class Forgetful(PnPADMM):
    """Without its dual: half-quadratic splitting."""

    def advance(self, bench: Bench, images: Images, index: int) -> Images:
        x, v, u = super().advance(bench, images, index)
        return x, v, 0 * u


class Heavy(REDDiff):
    """The prior at the weight of an error of sigma where it is sigma^2."""

    def weights(self, *given: Any) -> Callable[[float], float]:
        return lambda sigma: 1.0


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("pnp-admm", lambda prior: with_careless(PnPADMM)(prior, iterations=200)),
        ("pnp-admm", lambda prior: Forgetful(prior, iterations=200)),
        ("pnp-fbs", lambda prior: with_careless(PnPFBS)(prior, sigma=0.3)),
        ("red", lambda prior: with_careless(RED)(prior, sigma=0.3)),
        ("red-diff", lambda prior: Heavy(prior, start=None, steps=400, rate=0.1, end=0.05)),
        ("red-diff", lambda prior: REDDiff(prior, start=None, steps=400, rate=0.1, end=0.05, decay=False)),
        ("dpir", lambda prior: DPIR(prior, weight=1.0)),  # forgets its lambda
    ],
)
def test_a_mutant_fails(name: str, make: Make) -> None:
    assert error(make(noisy().prior), noisy()) > RUNS[name][1]


def test_any_function_is_a_denoiser() -> None:
    """A box filter, in units of its own: nearer the truth than the noisy data."""
    g = torch.Generator().manual_seed(0)
    box = FunctionDenoiser(lambda z, sigma: torch.nn.functional.avg_pool2d(z, 3, 1, 1, count_include_pad=False))
    prior = Prior(IdentityAutoencoder(), box, Linear(-1000.0, 1000.0), "HU", "CT", error=0.0)
    truth = torch.linspace(-800, 800, 20).repeat(20, 1)[None]
    y = Measurement(truth + 200 * torch.randn(1, 20, 20, generator=g), torch.full((1, 1, 1), 200.0**-2))
    for solver in (PnPADMM(prior), RED(prior, sigma=0.1), DPIR(prior)):
        image = solver(Diagonal(torch.ones(20, 20)), y, generator=g).image
        assert rms(image - truth) < 0.6 * rms(y.data - truth), solver.name
    crop = FunctionDenoiser(lambda z, sigma: z[..., 1:])
    with pytest.raises(ValueError, match="keep the shape"):
        RED(replace(prior, denoiser=crop))(Diagonal(torch.ones(20, 20)), y, generator=g)


@pytest.mark.parametrize("cls", [DPS, MMPS, FlowChef, REDDiff, PnPADMM, PnPFBS, RED, DPIR])
def test_a_network_that_gives_nan_is_named(cls: Callable[[Prior], Solver]) -> None:
    prior = replace(pixels().prior, denoiser=FunctionDenoiser(lambda z, sigma: z * torch.nan))
    with pytest.raises(ValueError, match=r"noise level .* example gave is not finite"):
        solved(cls(prior), pixels())


def test_settings_out_of_range_are_refused() -> None:
    prior = pixels().prior
    bad: list[tuple[Any, dict[str, Any]]] = [
        (PnPADMM, {"sigma": 0.0}),
        (RED, {"sigma": 1e3}),
        (PnPFBS, {"step": 2.0}),
        (DPIR, {"high": 0.01}),
        (DPIR, {"weight": 0.0}),
        (REDDiff, {"rate": 0.0}),
        (REDDiff, {"start": -1.0}),
        (FlowChef, {"step": 2.0}),
    ]
    for cls, settings in bad:
        with pytest.raises(ValueError, match="expected"):
            cls(prior, **settings)


def test_the_published_settings() -> None:
    prior = pixels().prior
    assert REDDiff.paper(prior).steps == 1000 and not REDDiff.paper(prior).decay
    assert DPIR.paper(prior).iterations == 8
    assert len(FlowChef.paper(prior).levels()) == 201
