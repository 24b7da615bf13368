"""ReSample against the exact Gaussian posterior (identity autoencoder), its schedule counts and its noise."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from gaussian_problems import inpainting, rms
from torch.nn.functional import avg_pool2d, interpolate

from medrecon.core.measurement import Measurement
from medrecon.models.autoencoder import Autoencoder
from medrecon.models.exact.gaussian import smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.base import Monitor
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.resample.fast import ReSample


def draws(solver, A, y, count):
    return torch.stack([solver(A, y, generator=torch.Generator().manual_seed(k)).image[0] for k in range(count)])


def test_fast_mode_samples_the_exact_posterior():
    """From pure noise with eta = 1 the fast mode comes near the posterior's mean and spread (prior sd is 1)."""
    prior, A, y, mean, sd = inpainting()
    end = prior.denoiser.sigma_min
    x = draws(ReSample(prior, start=100.0, end=end, steps=200, eta=1.0, antithetic=False, pairs=1), A, y, 24)
    assert rms(x.mean(0) - mean) < 0.11  # 0.2 / sqrt(24) = 0.04 of it is Monte Carlo
    assert 0.85 < rms(x.std(0)) / rms(sd) < 1.25


def test_without_data_consistency_the_test_fails():
    """The control: the same trajectory blind to the data is far from the posterior."""
    prior, A, y, mean, _ = inpainting()
    blind = Measurement(y.data, y.precision * 1e-12)
    x = draws(ReSample(prior, start=100.0, steps=50, eta=1.0, antithetic=False, pairs=1), A, blind, 4)
    assert rms(x.mean(0) - mean) > 0.3


def test_fast_mode_ends_at_the_noise():
    prior, A, y, _, _ = inpainting()
    fast = ReSample(prior, start=100.0, end=prior.denoiser.sigma_min, steps=20, antithetic=False, pairs=1)
    for solver in (fast, DDS(prior, start=100.0, steps=50)):
        chi2 = float(solver(A, y, generator=torch.Generator().manual_seed(0)).chi2)
        assert chi2 < 1.1 and (isinstance(solver, DDS) or chi2 > 0.8)


def test_the_antithetic_pair_does_what_many_trajectories_do():
    """A pair is nearer the posterior mean than one trajectory, and than the mean of two independent ones."""
    prior, A, y, mean, _ = inpainting()
    single = draws(ReSample(prior, start=100.0, steps=20, antithetic=False, pairs=1), A, y, 8)
    pairs = draws(ReSample(prior, start=100.0, steps=20, pairs=1), A, y, 4)
    error = [sum(rms(x - mean) for x in of) / len(of) for of in (single, (single[::2] + single[1::2]) / 2, pairs)]
    assert error[2] < 0.95 * error[1] < 0.95 * error[0]


def test_trajectories_that_end_early_are_nearer_the_posterior_mean():
    """Below the posterior's deviation, 0.25 here, they part, each to a sample of its own."""
    prior, A, y, mean, _ = inpainting()
    at = lambda end: ReSample(prior, start=100.0, end=end, steps=20, pairs=1)  # noqa: E731
    late, early = (draws(at(end), A, y, 4) for end in (prior.denoiser.sigma_min, 0.25))
    error = [sum(rms(x - mean) for x in of) / len(of) for of in (late, early)]
    assert error[1] < 0.8 * error[0]


def test_the_noise_levels_are_those_of_the_prior_unless_told():
    prior = replace(example_prior(), card={"start": 2.0, "end": 0.3})
    levels = lambda **kw: ReSample(prior, steps=3, **kw).levels()  # noqa: E731
    assert ReSample(example_prior(), steps=2).levels() == pytest.approx([0.5, 0.12, 0.0])  # of a card without them
    assert levels() == pytest.approx([2.0, 0.6**0.5, 0.3, 0.0])
    assert levels(start=0.2) == pytest.approx([0.2, 0.2, 0.2, 0.0])  # it ends where it starts, at the latest
    assert levels(start=1e3, end=1e-9)[::2] == pytest.approx([100.0, prior.denoiser.sigma_min])
    with pytest.raises(ValueError, match="end > 0"):
        ReSample(prior, end=0.0)


def test_steps_and_pairs_are_those_of_the_prior_unless_told():
    prior = replace(example_prior(), card={"steps": 3, "pairs": 1})
    numbers = lambda solver: (len(solver.levels()) - 1, len(solver.views()))  # noqa: E731
    assert numbers(ReSample(prior)) == (3, 1)
    assert numbers(ReSample(prior, steps=5, pairs=4)) == (5, 4)
    assert numbers(ReSample(example_prior())) == (8, 2)  # of a card without them
    for wrong in ({"steps": 0}, {"pairs": 0}):
        with pytest.raises(ValueError, match=">= 1"):
            ReSample(prior, **wrong)


def test_the_search_goes_from_tv_towards_the_most_probable_image():
    """Of a Gaussian that is its mean. The more is searched, the nearer; its calls of the networks are counted."""
    prior, A, y, mean, sd = inpainting()
    g = torch.Generator()
    start = lambda count: ReSample(prior, search=count).prepare(A, y, generator=g.manual_seed(0))  # noqa: E731
    starts = [start(count).guide.error.start[:1] for count in (0, 4, 100)]
    error = [rms(image[0] - mean) / rms(sd) for image in starts]
    assert error[2] < 0.1 < 0.5 * error[1] < 0.5 * error[0]
    searched = ReSample(prior, search=4)(A, y, generator=g.manual_seed(0))
    told = ReSample(prior)(A, y, generator=g.manual_seed(0), warm=starts[1])
    torch.testing.assert_close(searched.image, told.image, atol=1e-4, rtol=0)
    calls = [solution.diagnostics["network_calls"]["denoiser"] for solution in (searched, told)]
    assert calls[0] - calls[1] == 4


def test_the_search_is_the_prior_s_unless_told():
    prior = replace(example_prior(), card={"search": 5, "search_level": 0.9})
    found = lambda **kw: (lambda s: (s.iterations, s.high, s.sigma))(ReSample(prior, **kw).searcher())  # noqa: E731
    assert found() == (5, 0.9, 0.15)
    assert found(search=7, search_level=0.1) == (7, 0.1, 0.1)
    assert ReSample(example_prior()).searching() == 0
    for wrong in ({"search_below": 0.0}, {"search_below": -1}):
        with pytest.raises(ValueError, match=r"search_below > 0"):
            ReSample(prior, **wrong)
    for wrong in ({"search": -1}, {"search": 3, "search_level": 1e9}):
        with pytest.raises(ValueError, match=r"search|sigma"):
            ReSample(prior, **wrong)
    noise = prior.denoiser.sigma_max
    with pytest.raises(ValueError, match=r"search 3 with a start of pure noise"):
        ReSample(prior, search=3, start=noise)
    assert ReSample(prior, start=noise).searching() == 5, "a card's search goes with any start"


def test_same_seed_same_bits_and_batch_of_two_is_two_runs():
    prior, A, y, _, _ = inpainting()
    both = Measurement(torch.cat([y.data, 0.5 * y.data]), y.precision)
    solver = ReSample(prior, start=100.0, steps=8, eta=0.5, pairs=1)
    run = lambda m: solver(A, m, generator=torch.Generator().manual_seed(3)).image  # noqa: E731
    assert torch.equal(run(y), run(y))
    assert torch.equal(run(both), torch.cat([run(both[0:1]), run(both[1:2])]))


def test_bad_input_is_refused():
    prior, A, y, _, _ = inpainting(8)
    with pytest.raises(ValueError, match="pairs >= 1"):
        ReSample(prior, pairs=0)
    with pytest.raises(ValueError, match=r"there are: .*heun"):
        ReSample(prior, sampler="euler")
    complex_operator = Diagonal(torch.ones(8, 8, dtype=torch.complex64))
    data = Measurement(torch.zeros(1, 8, 8, dtype=torch.complex64), torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match="with_phase"):
        ReSample(prior)(complex_operator, data, generator=torch.Generator())


def test_magnitude_prior_with_a_phase_takes_complex_images():
    """A phase-only operator: y = x with x = m exp(i phi); the image keeps the phase and the magnitude of the data."""
    prior, _, _, _, _ = inpainting(8)
    g = torch.Generator().manual_seed(0)
    phase = torch.polar(torch.ones(1, 8, 8), torch.linspace(-1, 1, 64).reshape(1, 8, 8))
    truth = prior.denoiser.sample(1, g)[:, 0] * phase
    A = Diagonal(torch.ones(8, 8, dtype=torch.complex64))
    y = Measurement(truth, torch.full((1, 1, 1), 1e4))
    x = ReSample(prior.with_phase(phase), start=100.0, steps=20, pairs=1)(A, y, generator=g).image
    assert rms((x - truth).abs()) < 0.02
    assert isinstance(prior, Prior) and Monitor(y, 1, None)(truth) is False


def test_a_mirrored_prior_is_the_prior_of_mirrored_images(generator):
    prior = example_prior((8, 11))
    x = torch.randn(2, 8, 11, generator=generator)
    there, mirrored = prior.mirrored().encode(x), prior.encode(x.flip(-1))
    assert torch.equal(there, mirrored)
    torch.testing.assert_close(prior.mirrored().decode(there, (8, 11)), x)
    assert not torch.equal(there, prior.encode(x))


def test_the_second_pair_looks_into_a_mirror():
    """Two pairs are the mean of one pair and of one pair of the mirrored problem; the prior's mean is not symmetric."""
    prior, A, y, _, _ = inpainting()
    solve = lambda p, g, **kw: ReSample(p, start=100.0, steps=4, polish=False, **kw)(A, y, generator=g)  # noqa: E731
    both = solve(prior, torch.Generator().manual_seed(3), pairs=2)
    g = torch.Generator().manual_seed(3)
    first = solve(prior, g, pairs=1)
    second = solve(prior.mirrored(), g, pairs=1)
    torch.testing.assert_close(both.image, (first.image + second.image) / 2, atol=1e-5, rtol=1e-5)
    assert float((first.image - second.image).abs().max()) > 1e-3


@dataclass(frozen=True)
class Blocks(Autoencoder):
    """An autoencoder that knows only the means of 2 x 2 pixels."""

    factor: int = 2
    complex: bool = False

    def encode(self, u):
        return avg_pool2d(u[:, None], 2)

    def decode(self, z):
        return interpolate(z, scale_factor=2)[:, 0]


def test_what_the_decoder_cannot_express_comes_from_the_data():
    """Details of rms 0.2 that no latent shows, seen in most pixels with noise of 0.05, are there after the polish, off
    by little more than their posterior deviation of 0.0485; nothing is made up where nothing was seen; and a prior that
    claims to lose nothing is only brought to chi^2/m = 1."""
    g = torch.Generator().manual_seed(0)
    denoiser = smooth_gaussian((1, 12, 12))
    lossy = Prior(Blocks(), denoiser, Linear(-1.0, 1.0), "a.u.", "CT", error=0.2)
    coarse = lossy.decode(denoiser.sample(1, g), (24, 24))
    detail = torch.randn(coarse.shape, generator=g)
    detail = 0.23 * (detail - lossy.decode(lossy.encode(detail), (24, 24)))
    seen = (torch.rand(24, 24, generator=g) < 0.8).float()
    data = seen * (coarse + detail + 0.05 * torch.randn(coarse.shape, generator=g))
    y = Measurement(data, (seen / 0.05**2)[None])
    solve = lambda prior: ReSample(prior, start=100.0)(Diagonal(seen), y, generator=torch.Generator().manual_seed(0))  # noqa: E731
    solution = solve(lossy)
    before, after = (x - coarse - detail for x in (solution.diagnostics["latent_image"], solution.image))
    at = seen.bool()[None]
    assert rms(before[at]) > 0.15 and rms(after[at]) < 0.052
    assert torch.equal(before[~at], after[~at])
    sure = solve(replace(lossy, error=0.0))
    assert rms((sure.image - coarse - detail)[at]) > 0.058


def test_with_samples_enough_the_search_is_left_out():
    """As a card says, unless the search is told; then as told."""
    prior, A, y, _, _ = inpainting()
    prior, ratio = (
        replace(prior, card={"search": 4, "search_below": 0.5}),
        math.prod(A.out_shape) / math.prod(A.in_shape),
    )
    assert ratio > 0.5
    calls = lambda **kw: (  # noqa: E731
        ReSample(prior, **kw)(A, y, generator=torch.Generator().manual_seed(0)).diagnostics["network_calls"]["denoiser"]
    )
    bare = calls(search=0)
    assert calls() == bare, "the card's limit leaves it out"
    assert calls(search=4) == bare + 4, "told, it is done"
    assert calls(search_below=2 * ratio) == bare + 4
    assert calls(search=4, search_below=ratio) == bare, "the limit itself is enough"
