"""Samplers against the exact Gaussian: order of convergence, variance, and the conversion of parametrisations."""

import math

import numpy as np
import pytest
import torch

from medrecon.core.discover import classes
from medrecon.diffusion.draw import Independent
from medrecon.diffusion.guide import Estimate, Guide, Unconditional
from medrecon.diffusion.process import Process
from medrecon.diffusion.reverse import State, reverse, sample
from medrecon.diffusion.samplers.base import NamedSampler
from medrecon.diffusion.samplers.bdia import BDIA
from medrecon.diffusion.samplers.ddim import DDIM
from medrecon.diffusion.samplers.evodiff import EVODiff
from medrecon.diffusion.samplers.exponential import Exponential
from medrecon.diffusion.samplers.heun import Heun
from medrecon.diffusion.samplers.lml import LML
from medrecon.diffusion.samplers.multistep import Multistep
from medrecon.diffusion.schedules import discrete_vp, karras, log_uniform, vp_uniform
from medrecon.models.adapters.discrete_vp import DiscreteVP, linear_beta_abar
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import smooth_gaussian

pytestmark = pytest.mark.usefixtures("one_thread")
LEVELS = log_uniform(41, 0.05, 8.0).tolist()
SAMPLERS = [s for c in classes("medrecon.diffusion.samplers", NamedSampler) for s in c.examples()]
ODE = [s for s in SAMPLERS if not s.stochastic]
SDE = [s for s in SAMPLERS if s.stochastic and s.takes_estimates]


def error(sampler, steps, generator):
    """Distance from the exact flow between sigma 8 and 0.05."""
    prior = smooth_gaussian((1, 5, 4))
    z = 8 * torch.randn(3, 1, 5, 4, dtype=torch.float64, generator=generator)
    out = sample(prior, sampler, z, log_uniform(steps, 0.05, 8.0)[:-1], generator)
    return float((out - prior.flow(z, 8.0, 0.05)).norm() / z.norm())


def test_every_sampler_is_found():
    assert {type(s).__name__ for s in SAMPLERS} >= {"DDIM", "Ancestral", "Heun", "Multistep"}


@pytest.mark.parametrize("sampler", ODE, ids=repr)
def test_order_of_convergence(sampler):
    coarse, fine = (error(sampler, n, torch.Generator().manual_seed(3)) for n in (81, 161))
    assert math.log2(coarse / fine) == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("sampler", SDE, ids=repr)
def test_stochastic_samplers_converge_to_the_prior(sampler, generator):
    prior = smooth_gaussian((1, 3, 4))
    sigmas = log_uniform(300, 0.01, 60.0)
    z = 60 * torch.randn(4000, 1, 3, 4, dtype=torch.float64, generator=generator)
    draws = sample(prior, sampler, z, sigmas, generator).flatten(1)
    spread = torch.linalg.eigvalsh(torch.cov(draws.T)) / torch.linalg.eigvalsh(prior.covariance)
    assert float((draws.mean(0) - prior.mean).abs().max()) < 0.08
    # The smallest eigenvalue is 0.01: what the last noise level 0.01^2 and 4000 draws leave is below 15 %.
    assert 0.85 < float(spread.min()) and float(spread.max()) < 1.15


def test_at_equal_calls_neither_evodiff_nor_lml_reaches_the_multistep():
    """What they leave of the error of DDIM: 0.7, and 0.4 (0.24 of 256 pixels); two terms of a Taylor series, 0.006."""
    plain, *others = (error(s, 161, torch.Generator().manual_seed(3)) for s in (DDIM(), EVODiff(), LML(), Multistep()))
    assert [round(e / plain, 1) for e in others] == [0.7, 0.4, 0.0]


@pytest.mark.parametrize("sampler", [LML(kappa=0), LML(kappa=0, damping=5e-5)], ids=repr)
def test_lml_without_memory_is_ddim(sampler, generator):
    """The published default: a correction that corrects nothing."""
    prior, z = smooth_gaussian((1, 5, 4)), 8 * torch.randn(3, 1, 5, 4, dtype=torch.float64, generator=generator)
    ends = [sample(prior, s, z, torch.tensor(LEVELS), generator) for s in (sampler, DDIM(), LML())]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-10)
    assert float((ends[2] - ends[1]).abs().max()) > 1e-2


def test_lml_turns_the_noise_by_half_its_last_change_and_keeps_its_length(generator):
    """kappa / damping of it, to first order, and of that what is across; each item by itself."""
    noise, change = torch.randn(2, 2, 1, 3, 4, dtype=torch.float64, generator=generator)
    change = 1e-5 * change
    turned = LML().turned(noise, noise - 0.1 * change)
    along = lambda a: noise * ((a * noise).sum((1, 2, 3)) / (noise * noise).sum((1, 2, 3))).view(-1, 1, 1, 1)  # noqa: E731
    torch.testing.assert_close((turned - noise) / 1e-5, 0.5 * (change - along(change)) / 1e-5, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(turned.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1))
    torch.testing.assert_close(LML().turned(noise[1:], (noise - 0.1 * change)[1:]), turned[1:], rtol=0, atol=0)


def test_the_damping_of_the_published_code_turns_the_noise_at_right_angles(generator):
    """In its units, 8e-4 / |e|^2, the flow is lost."""
    assert error(LML(), 41, generator) < 0.02
    assert error(LML(damping=8e-4), 41, generator) > 0.3
    with pytest.raises(ValueError, match="0 <= kappa < 1 and damping > 0"):
        LML(kappa=1.0)


def test_evodiff_takes_the_steps_of_its_paper(generator):
    """D along one direction all the way: projections are ratios, and all is known by hand, in its own variables."""
    sigmas, d = [4.0, 2.5, 1.4, 0.6], [1.0, 1.7, 1.3]
    inverse = lambda k: 1 / sigmas[k]  # noqa: E731
    sigmoid = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    h = [sigmas[k + 1] * (inverse(k + 1) - inverse(k)) for k in range(3)]  # sigma_t h of the paper
    r = [math.nan] + [math.log(sigmas[k - 1] / sigmas[k]) / math.log(sigmas[k] / sigmas[k + 1]) for k in (1, 2)]
    roots = [math.nan] + [math.sqrt(sigmas[k + 1] * sigmas[k - 1]) / sigmas[k] for k in (1, 2)]
    balance = lambda k, i: 0.5 * roots[k] + 0.5 * d[i] / d[i - 1]  # noqa: E731
    x = [3.0, sigmas[1] / sigmas[0] * 3.0 + h[0] * d[0]]
    euler = sigmas[2] / sigmas[1] * x[1] + h[1] * d[1]
    first, r1 = d[1] - balance(1, 1) * d[0], sigmoid(0.25 * balance(1, 1)) * r[1]
    probe = euler + 0.5 * h[1] / r1 * first
    second = d[2] - balance(1, 2) * d[1]
    ahead, behind = r[1] * second, first / r[1]
    eta = 0.5 * sigmoid(abs(0.5 * max(-2, min(2, (ahead + behind) / (ahead - behind)))))
    gradient = -eta * behind + (1 - eta) * ahead
    zeta = sigmoid(abs((probe - euler - 0.5 * h[1] / r1 * gradient) / first / h[1]) - 0.5)
    x.append(euler + 0.5 * h[1] / zeta * gradient)
    last = d[2] - balance(2, 2) * d[1]
    end = sigmas[3] / sigmas[2] * x[2] + h[2] * d[2]
    end += 0.5 * h[2] / (sigmoid(0.25 * balance(2, 2)) * r[2]) * last
    along, known = torch.randn(1, 1, 2, 3, dtype=torch.float64, generator=generator), dict(zip(sigmas, d, strict=False))
    guide = Unconditional(lambda z, sigma: known[sigma] * along)
    z, before = 3.0 * along, None
    for sigma, following, expected in zip(sigmas, sigmas[1:], (x[1], probe, end), strict=False):
        z, before = EVODiff().step(guide, z, sigma, following, before, Independent(generator))
        torch.testing.assert_close(z, expected * along, rtol=1e-12, atol=1e-12)


def test_bdia_that_damps_nothing_is_of_second_order():
    coarse, fine = (error(BDIA(1.0), n, torch.Generator().manual_seed(3)) for n in (81, 161))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)


def test_the_second_step_of_the_exponential_is_the_mean_reverting_sampler(generator):
    """MR Sampler, ODE-2 with data prediction (arXiv 2502.07856), in its own states x = a z + (1 - a) mu."""
    theta = torch.linspace(0.01, 3.0, 9, dtype=torch.float64)
    a, s = (-theta).exp(), 0.2 * (1 - (-2 * theta).exp()).sqrt()
    process = Process(a, 1 - a, s)
    mu, x, x0, old = torch.randn(4, 2, 1, 3, 4, dtype=torch.float64, generator=generator)
    guide = Unconditional(lambda z, sigma: x0)
    for u in range(7):
        t, earlier = u + 1, u + 2
        level = process.sigma.tolist()
        h, last = math.log(level[t] / level[u]), math.log(level[earlier] / level[t])
        first = math.expm1(-h)
        second, slope, ratio = first / h + 1, (x0 - old) / (last / h), s[u] / s[t]
        expected = ratio * x - a[u] * (first * x0 - second * slope) + mu * (1 - ratio + ratio * a[t] - a[u])
        z, before = process.to_engine(x, t, mu), Estimate(old, old, None, level[earlier])
        z, _ = Exponential().step(guide, z, level[t], level[u], before, Independent(generator))
        torch.testing.assert_close(process.from_engine(z, u, mu), expected, rtol=1e-12, atol=1e-12)


def test_the_third_step_of_the_exponential_integrates_the_parabola(generator):
    """A denoiser that is a parabola in log sigma: three of its values are all that there is to know."""
    at = lambda sigma: torch.full((1, 1, 2, 2), 1 - 2 * math.log(sigma) + 3 * math.log(sigma) ** 2, dtype=torch.float64)  # noqa: E731
    earlier, before, sigma, end = 3.0, 1.9, 1.5, 0.4
    known = Estimate(at(before), at(before), None, before, memory=((earlier, at(earlier)),))
    z = torch.randn(1, 1, 2, 2, dtype=torch.float64, generator=generator)
    moved, _ = Exponential().step(Unconditional(lambda z, s: at(s)), z, sigma, end, known, Independent(generator))
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(30))
    levels = ((nodes + 1) / 2 * (sigma - end) + end).tolist()
    flow = sum(w * end * at(s) / s**2 for w, s in zip(weights, levels, strict=True)) * (sigma - end) / 2
    torch.testing.assert_close(moved, end / sigma * z + flow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_bdia_runs_back_to_its_noise_and_forth(gamma, generator):
    """With a guide that shifts its targets, as those do that know data."""
    prior, levels = smooth_gaussian((1, 5, 4)), LEVELS[:-1] if gamma == 1 else LEVELS[20:-1]

    class Drawn(Guide):
        def __call__(self, z, sigma):
            clean = prior(z, torch.tensor(sigma))
            return Estimate(clean, torch.lerp(clean, torch.ones_like(clean), 0.1), None, sigma)

    draw = Independent(generator, each=2)
    start = State.start(levels[0] * draw(torch.empty(2, 1, 5, 4, dtype=torch.float64)), draw)
    end = reverse(Drawn(), BDIA(gamma), levels, draw, start)
    last, level = end.before.memory[0][1], levels[-2]
    assert end.before.sigma == level
    second, first = BDIA(gamma).noised(Drawn(), levels, end.z, last)
    torch.testing.assert_close(first, start.z, rtol=0, atol=1e-10 * levels[0])
    before = Drawn()(first, levels[0])._replace(memory=((levels[0], first),))
    again = reverse(Drawn(), BDIA(gamma), levels, draw, State(second, 1, before, draw.state()))
    torch.testing.assert_close(again.z, end.z, rtol=0, atol=1e-10)
    plain = DDIM()  # the control: the steps of DDIM, taken backwards, do not find it
    z = reverse(Drawn(), plain, levels, draw, start).z
    for low, high in zip(levels[::-1], levels[-2::-1]):
        estimate = Drawn()(z, low)
        z = estimate.clean + high / low * (z - estimate.target)
    assert float((z - start.z).abs().max()) > 1e-2


def test_churn_mends_what_the_denoiser_did_wrong_before(generator):
    """A denoiser that is wrong above sigma 4: the flow carries its error to the end, churned steps forget much."""
    prior = smooth_gaussian((1, 3, 4))

    class Faulty(Denoiser):
        sigma_min, sigma_max = prior.sigma_min, prior.sigma_max

        def __call__(self, z, sigma):
            return prior(z, sigma) + 2.0 * (sigma > 4).view(-1, 1, 1, 1)

    def bias(churn):
        z = 60 * torch.randn(2000, 1, 3, 4, dtype=torch.float64, generator=generator)
        draws = sample(Faulty(), Heun(churn), z, karras(40, 0.01, 60.0), generator).flatten(1)
        return float((draws.mean(0) - prior.mean).square().mean().sqrt())

    assert bias(0.4) < 0.6 * bias(0.0)
    with pytest.raises(ValueError, match=r"churn from 0 to 0\.41"):
        Heun(churn=0.5)


def test_schedules_fall_to_zero_and_refuse_nonsense():
    vp = discrete_vp(linear_beta_abar(), torch.arange(999, 0, -100))
    for sigmas in (log_uniform(7, 0.1, 5), karras(7, 0.1, 5), vp_uniform(7, 0.1, 5), vp):
        assert sigmas.dtype == torch.float64 and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all())
    with pytest.raises(ValueError, match="low <= high"):
        log_uniform(5, 2.0, 1.0)
    with pytest.raises(ValueError, match="karras"):
        karras(0, 1.0, 2.0)


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0"])
def test_adapters_agree_with_the_exact_denoiser(kind, generator):
    """A network that predicts the exact epsilon, v or x0 of a VP process is the exact Denoiser once adapted."""
    prior = smooth_gaussian((1, 4, 3))
    abar = linear_beta_abar()

    def network(x, t):
        index = t.round().long()
        alpha, noise = (v.view(-1, 1, 1, 1) for v in (abar[index].sqrt(), (1 - abar[index]).sqrt()))
        x0 = prior(x / alpha, (noise / alpha).flatten())
        eps = (x - alpha * x0) / noise
        return {"epsilon": eps, "v": alpha * eps - noise * x0, "x0": x0}[kind]

    adapted = DiscreteVP(network, abar, kind)
    index = torch.tensor([3, 400, 990])
    sigma = ((1 - abar[index]) / abar[index]).sqrt()
    z = torch.randn(3, 1, 4, 3, dtype=torch.float64, generator=generator) * sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(adapted(z, sigma), prior(z, sigma), rtol=1e-5, atol=1e-6)
    other = {"epsilon": "x0", "v": "epsilon", "x0": "v"}[kind]
    assert not torch.allclose(DiscreteVP(network, abar, other)(z, sigma), prior(z, sigma), atol=1e-2)


def test_posterior_oracle_matches_conditioning_by_sampling(generator):
    """The closed-form posterior against importance-free algebra: joint covariance of (z0, y)."""
    prior = smooth_gaussian((1, 3, 2))
    a = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    y = torch.randn(4, dtype=torch.float64, generator=generator)
    mean, cov = prior.posterior(a, y, 0.3)
    precision = torch.linalg.inv(prior.covariance) + a.T @ a / 0.09
    torch.testing.assert_close(cov, torch.linalg.inv(precision))
    expected = cov @ (torch.linalg.solve(prior.covariance, prior.mean) + a.T @ y / 0.09)
    torch.testing.assert_close(mean, expected)


def test_the_time_of_a_variance_preserving_process():
    """1 + sigma^2 = exp of the integral of beta, of which 1000 steps are the sum (arXiv 2006.11239)."""
    sigmas = vp_uniform(11, 0.02, 20.0)[:-1]
    abar = (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0)
    discrete = ((1 - abar) / abar).sqrt()
    steps = torch.searchsorted(discrete, sigmas).double()
    assert float((steps.diff() - steps.diff().mean()).abs().max()) < 4  # of some 80
    assert float(sigmas[0]) == pytest.approx(20) and float(sigmas[-1]) == pytest.approx(0.02)
