"""The reverse loop: with the exact guide it samples the exact posterior under every sampler, and it can be resumed."""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from medrecon.core.discover import classes
from medrecon.diffusion.draw import Antithetic, Independent, streams
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.reverse import State, reverse
from medrecon.diffusion.samplers.base import NamedSampler, sampler_named
from medrecon.diffusion.samplers.bdia import BDIA
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.exact.gaussian import GaussianPrior, smooth_gaussian

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE, NOISE = (1, 3, 4), 0.3
SAMPLERS = [s for c in classes("medrecon.diffusion.samplers", NamedSampler) for s in c.examples()]
ESTIMATING = [s for s in SAMPLERS if s.takes_estimates]
SAMPLING = [s for s in SAMPLERS if s.takes_samples]


@functools.cache
def problem() -> tuple[GaussianPrior, Tensor, Tensor]:
    """A prior, every second pixel seen, and its data."""
    prior, g = smooth_gaussian(SHAPE), torch.Generator().manual_seed(5)
    seen = torch.eye(12, dtype=torch.float64)[::2]
    truth = prior.sample(1, g).flatten().double()
    return prior, seen, seen @ truth + NOISE * torch.randn(6, dtype=torch.float64, generator=g)


@functools.cache
def exact_posterior() -> tuple[Tensor, Tensor]:
    prior, seen, y = problem()
    return prior.posterior(seen, y, NOISE)


@dataclass(frozen=True, eq=False)
class ExactGuide(Guide):
    """E[z0 | z, y] in closed form; `share` of the correction by the data, 1 but for the mutant."""

    share: float = 1.0

    @functools.cached_property
    def known(self) -> GaussianPrior:
        return GaussianPrior(*exact_posterior(), SHAPE)

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        known, (prior, _, _) = self.known, problem()
        level = torch.tensor(sigma, dtype=torch.float64)
        found = known(z, level)
        found = found if self.share == 1 else torch.lerp(prior(z, level), found, self.share)
        return Estimate(found, found, found[:, 0], sigma)


def sampled(guide: Guide, sampler: NamedSampler, count: int = 2000, steps: int = 120) -> Tensor:
    """Ends (count, 12) of trajectories from pure noise."""
    draw = Independent(torch.Generator().manual_seed(1), each=count)
    z = 60 * draw(torch.empty(count, *SHAPE, dtype=torch.float64))
    return reverse(guide, sampler, log_uniform(steps, 0.005, 60.0).tolist(), draw, State.start(z, draw)).z.flatten(1)


def gap(z: Tensor) -> tuple[float, float]:
    """Distances of mean and of covariance from the exact ones, relative to the posterior's spread."""
    mean, cov = exact_posterior()
    spread = float(cov.diag().mean())
    return float((z.mean(0) - mean).abs().max()) / spread**0.5, float((torch.cov(z.T) - cov).abs().max()) / spread


@pytest.mark.parametrize("sampler", ESTIMATING, ids=repr)
def test_the_exact_guide_gives_the_exact_posterior(sampler: NamedSampler) -> None:
    centre, spread = gap(sampled(ExactGuide(), sampler))
    assert centre < 0.1  # 2000 draws: 0.02
    assert spread < 0.25


@pytest.mark.parametrize("sampler", ESTIMATING, ids=repr)
def test_a_guide_that_believes_the_data_less_does_not(sampler: NamedSampler) -> None:
    centre, spread = gap(sampled(ExactGuide(0.5), sampler, 1000, 60))
    assert max(centre, spread) > 0.4


@dataclass(frozen=True, eq=False)
class SamplingGuide(Guide):
    """A sample of p(z0 | z, y), whose covariance is that of the posterior at this level; `spread` of its deviation, 1
    but for the mutant."""

    noise: torch.Generator
    spread: float = 1.0

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        centre = ExactGuide()(z, sigma).clean
        values, vectors = torch.linalg.eigh(exact_posterior()[1])
        deviation = (values.clamp_min(0) * sigma**2 / (values.clamp_min(0) + sigma**2)).sqrt()
        n = torch.randn(len(z), 12, dtype=z.dtype, generator=self.noise)
        found = centre + self.spread * ((n * deviation) @ vectors.T).reshape(z.shape)
        return Estimate(found, found, found[:, 0], sigma)


@pytest.mark.parametrize("sampler", SAMPLING, ids=repr)
def test_samples_for_targets_give_the_exact_posterior(sampler: NamedSampler) -> None:
    centre, spread = gap(sampled(SamplingGuide(torch.Generator().manual_seed(2)), sampler))
    assert centre < 0.1
    assert spread < 0.25


def test_samples_without_spread_do_not() -> None:
    """Renoising what is only a mean loses the spread."""
    mutant = SamplingGuide(torch.Generator().manual_seed(2), 0.0)
    for sampler in (s for s in SAMPLING if not s.takes_estimates):
        assert gap(sampled(mutant, sampler, 1000, 60))[1] > 0.4


@dataclass(frozen=True, eq=False)
class ShiftGuide(Guide):
    """The denoised latent, drawn to a fixed one: target and clean differ, as in DDS."""

    pull: float = 0.3

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        clean = problem()[0](z, torch.tensor(sigma))
        return Estimate(clean, torch.lerp(clean, torch.ones_like(clean), self.pull), clean[:, 0], sigma)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_shift_is_made_once_a_step_and_the_target_is_the_end(sampler: NamedSampler) -> None:
    """From the latent of the target, one step without noise in it: z' = target where clean = z."""
    like = torch.ones(2, *SHAPE, dtype=torch.float64)

    @dataclass(frozen=True)
    class Fixed(Guide):
        def __call__(self, z: Tensor, sigma: float) -> Estimate:
            return Estimate(z, z + 2.0, None, sigma)

    if not sampler.stochastic:
        draw = Independent(torch.Generator(), each=2)
        z, _ = sampler.step(Fixed(), like, 1.0, 0.5, None, draw)
        torch.testing.assert_close(z, like + 2)
    draw = Independent(torch.Generator().manual_seed(0), each=2)
    z, estimate = sampler.step(ShiftGuide(), like, 1.0, 0.0, None, draw)
    torch.testing.assert_close(z, estimate.target)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_no_sampler_diverges_under_a_guide_that_shifts(sampler: NamedSampler) -> None:
    """The published BDIA with gamma = 1 does: what one state was shifted by, the next takes back, and more."""
    ends = lambda s: float(sampled(ShiftGuide(), s, 8, 100).abs().max())  # noqa: E731
    assert ends(sampler) < 10
    if isinstance(sampler, BDIA):
        assert ends(BDIA(1.0)) > 10


@pytest.mark.parametrize("kind", ["independent", "antithetic"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(sampler: NamedSampler, kind: str) -> None:
    sigmas = log_uniform(7, 0.05, 5.0).tolist()

    def fresh() -> tuple[Independent | Antithetic, State]:
        g = torch.Generator().manual_seed(3)
        draw = Independent(g, each=4) if kind == "independent" else Antithetic(*streams(g, 2, 9, SHAPE))
        return draw, State.start(5 * draw(torch.empty(8, *SHAPE)), draw)

    draw, start = fresh()
    whole = reverse(ShiftGuide(), sampler, sigmas, draw, start)
    for stop in range(1, 7):
        draw, start = fresh()
        seen: list[Estimate] = []
        part = reverse(ShiftGuide(), sampler, sigmas, draw, start, lambda e: seen.append(e) or len(seen) == stop)  # noqa: B023
        assert part.step == stop == len(seen)
        for g in draw.generators:
            g.manual_seed(99)  # what happens to them in between does not matter
        other, _ = fresh()
        done = reverse(ShiftGuide(), sampler, sigmas, other, part)
        assert done.step == 7 and torch.equal(done.z, whole.z)
        assert done.before is not None and whole.before is not None
        assert torch.equal(done.before.target, whole.before.target)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_no_more_draws_a_step_than_it_says(sampler: NamedSampler) -> None:
    """`streams` of several trajectories rely on it."""
    draw = Independent(torch.Generator().manual_seed(0))
    calls: list[int] = []
    original = draw.noise
    draw.noise = lambda shape: calls.append(1) or original(shape)  # type: ignore[method-assign]
    z = torch.ones(1, *SHAPE)
    for sigma, following in ((5.0, 1.0), (1.0, 0.1), (0.1, 0.0)):
        calls.clear()
        z, _ = sampler.step(ShiftGuide(), z, sigma, following, None, draw)
        assert len(calls) <= sampler.draws


def test_items_may_be_volumes() -> None:
    """Nothing in the loop asks for slices."""

    @dataclass(frozen=True)
    class White(Guide):
        def __call__(self, z: Tensor, sigma: float) -> Estimate:
            clean = z / (1 + sigma**2)
            return Estimate(clean, clean, None, sigma)

    for sampler in ESTIMATING:
        draw = Independent(torch.Generator().manual_seed(0), each=2)
        z = 20 * draw(torch.empty(2, 1, 12, 14, 16))
        end = reverse(White(), sampler, log_uniform(150, 0.01, 20.0).tolist(), draw, State.start(z, draw)).z
        assert end.shape == z.shape and float(end.std()) == pytest.approx(1, abs=0.06)


def test_samplers_go_by_their_names() -> None:
    for sampler in SAMPLERS:
        eta = 1.0 if sampler.name in ("ancestral", "pc") else 0.0
        assert isinstance(sampler_named(sampler.name, eta), type(sampler))
    assert sampler_named("heun", 1.0).stochastic and not sampler_named("ddim", 0.0).stochastic
    for name, eta, complaint in (
        ("dim", 0.0, "there are: .*ddim"),
        ("multistep", 0.5, "adds no noise"),
        ("exponential", 0.5, "adds no noise"),
        ("bdia", 0.5, "adds no noise"),
        ("lml", 0.5, "adds no noise"),
        ("evodiff", 0.5, "adds no noise"),
        ("ancestral", 0.0, "eta = 1"),
        ("pc", 0.0, "eta = 1"),
        ("ddim", 1.5, "from 0 to 1"),
        ("heun", -0.1, "churn"),
    ):
        with pytest.raises(ValueError, match=complaint):
            sampler_named(name, eta)
