"""DLG: the noise level in closed form, and the chain against exact Gaussian posteriors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from gaussian_problems import complex_pixels, gap, inpainting, rms
from torch import Tensor

from medrecon.diffusion.draw import Independent
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.reverse import reverse
from medrecon.models.exact.gaussian import GaussianPrior, smooth_gaussian
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.sampling.dlg import DLG, Chain, noise_level

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("sigma", [0.2, 1.0, 4.0])
def test_the_noise_level_is_read_off_the_estimate(sigma: float, generator: torch.Generator) -> None:
    """Of z0 + sigma n, part of the noise of which went in last; its distance to D alone says too little."""
    prior, size = smooth_gaussian((1, 16, 16)), 0.4 * sigma
    z0, first, last = prior.sample(64, generator).double(), *torch.randn(2, 64, 1, 16, 16, generator=generator).double()
    z = z0 + (sigma**2 - size**2) ** 0.5 * first
    level = torch.tensor(sigma, dtype=torch.float64)
    clean = prior(z + size * last, level)
    found = noise_level(z + size * last, clean, clean - prior(z, level), last, size)
    assert float(found.square().mean().sqrt()) == pytest.approx(sigma, rel=0.01)
    alone = float((z + size * last - clean).square().mean().sqrt())
    share = float((prior.values / (prior.values + sigma**2)).mean())
    assert alone == pytest.approx(sigma * (1 - share) ** 0.5, rel=0.02) and alone < 0.995 * sigma


@dataclass(frozen=True, eq=False)
class Exact(Guide):
    """E[z0 | z] of a Gaussian, the posterior of something."""

    known: GaussianPrior

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = self.known(z, torch.tensor(sigma, dtype=torch.float64))
        return Estimate(clean, clean, clean[:, 0], sigma)


def chain(length: float, sigma: float = 0.5) -> tuple[float, float]:
    """Error of the mean of 64 chains' samples, and the deviation of their last states, moved down exactly, over those
    of the Gaussian."""
    known = smooth_gaussian((1, 8, 8))
    draw = Independent(torch.Generator().manual_seed(1), each=64)
    z = known.sample(64, draw.generators[0]).double()
    z = z + sigma * draw(z)
    sampler, before = Chain(length, 4, (0.2, 0.05, 0.01, 0.0)), None
    for _ in range(80):
        z, before = sampler.step(Exact(known), z, sigma, sigma, before, draw)
    assert before is not None and before.image is not None
    scale = known.covariance.diag().mean().sqrt()
    end = known.flow(z, sigma, 0.0).flatten(1)
    centre = (before.image.flatten(1).mean(0) - known.mean).square().mean().sqrt()
    return float(centre / scale), float(end.var(0).mean().sqrt() / scale)


def test_the_chain_stays_at_its_level_whatever_the_length_of_its_steps() -> None:
    """Unadjusted steps would leave more noise, by 1 / (1 - length / 2): 1.05 and 1.14 of the deviation at the end."""
    for length in (0.2, 0.5):
        centre, spread = chain(length)
        assert centre < 0.12  # 64 starts alone would give 0.125
        assert spread == pytest.approx(1, abs=0.03)


def test_the_samples_are_counted_one_by_one() -> None:
    """Their mean and deviation are those of all of them at once."""
    prior, A, y, _, _ = inpainting(6, 0.2)
    found: list[Tensor] = []

    class Kept(Chain):
        def sample(self, *arguments: object) -> Tensor:  # type: ignore[override]
            found.append(super().sample(*arguments))  # type: ignore[arg-type]
            return found[-1]

    class Solver(DLG):
        def stepper(self) -> Chain:
            return Kept(**vars(super().stepper()))

    solver = Solver(prior, start=None, steps=3, samples=3, states=4, skip=2, short=2, products=4)
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    each = torch.cat(found)
    assert len(each) == 12
    torch.testing.assert_close(solution.image[0], each.mean(0))
    torch.testing.assert_close(solution.diagnostics["deviation"][0], each.std(0))
    assert solution.diagnostics["network_calls"]["denoiser"] == 3 * (2 + 1 + 4 * (2 + 2))


def test_mean_and_spread_of_the_posterior() -> None:
    solver = DLG(example_prior((8, 8)), start=None, end=1e-3, steps=8, samples=16, states=6, sigma=1.0, skip=3, short=8)
    prior, A, y, mean, deviation = inpainting(8, 0.1)
    solution = replace(solver, prior=prior)(A, y, generator=torch.Generator().manual_seed(0))
    assert rms(solution.image[0] - mean) < 0.2 * rms(deviation)  # 96 samples: 0.12 with what they share
    assert rms(solution.diagnostics["deviation"][0]) == pytest.approx(rms(deviation), rel=0.07)


def test_complex_images() -> None:
    problem = complex_pixels()
    solver = DLG(problem.prior, start=None, end=1e-3, steps=6, samples=8, states=4, skip=3, sigma=1.0, short=8)
    centre, spread = gap(solver, problem)  # type: ignore[arg-type]
    assert centre < 0.35 and spread == pytest.approx(1, abs=0.12)


def test_levels_fall_to_the_chain_and_stay() -> None:
    solver = DLG(example_prior(), start=5.0, steps=4, states=3, skip=2, sigma=0.5, short=3, end=0.01)
    levels, below = solver.levels(), solver.below()
    assert levels[:4] == pytest.approx([5 * 0.1 ** (k / 3) for k in range(4)]) and levels[3:] == 7 * [below[0]]
    assert below == pytest.approx([0.5, 0.5**0.5 * 0.1, 0.01, 0.0])
    assert replace(solver, start=0.5).levels() == 7 * [below[0]]
    assert all(a >= b for a, b in pairwise(levels))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits() -> None:
    prior, A, y, _, _ = inpainting(4, 0.3)
    solver = DLG(prior, start=2.0, sigma=0.5, steps=3, samples=2, states=2, skip=2, short=2, products=4)
    with torch.no_grad():
        for stop in (1, 3, 5):
            run, other = (solver.prepare(A, y, generator=torch.Generator().manual_seed(3)) for _ in range(2))
            whole = reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start)
            seen: list[Estimate] = []
            part = reverse(
                other.guide, other.sampler, other.sigmas, other.draw, other.start,
                lambda e: seen.append(e) or len(seen) == stop,  # noqa: B023
            )  # fmt: skip
            for g in other.draw.generators:
                g.manual_seed(99)
            done = reverse(other.guide, other.sampler, other.sigmas, other.draw, part)
            assert part.step == stop and torch.equal(done.z, whole.z)
            assert torch.equal(solver.image(other, done)[1]["deviation"], solver.image(run, whole)[1]["deviation"])


def test_bad_settings_are_refused() -> None:
    for settings in ({"states": 0}, {"skip": 0}, {"short": 0}, {"sigma": 0.0}, {"length": 0.0}, {"length": 1.5}):
        with pytest.raises(ValueError, match=r"DLG: expected states, skip, short and products >= 1"):
            DLG(example_prior(), **settings)  # type: ignore[arg-type]
