"""ReSample as published and its reference code: schedule, calls, the known deviations, and the noise it adds."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from gaussian_problems import inpainting, rms

from medrecon.core.measurement import Measurement
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.diffusion.resample.paper import ReSamplePaper
from medrecon.solvers.diffusion.resample.published import (
    HardConsistency,
    PublishedGuide,
    published_process,
    stage,
    timesteps,
)
from medrecon.solvers.diffusion.resample.reference import ReSampleReference

pytestmark = pytest.mark.usefixtures("one_thread")
FORMS = [ReSamplePaper, ReSampleReference]


@pytest.mark.parametrize("form", FORMS)
def test_it_beats_zero_filling(form):
    prior, A, y, mean, _ = inpainting()
    solver = form(prior, steps=100, skip=2, pixel_lr=0.1, latent_lr=0.1, pixel_iterations=60, latent_iterations=60)
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    assert rms(solution.image[0] - mean) < 0.7 * rms(y.data[0] - mean)


def test_published_schedule_counts():
    """500 steps: 17 pixel and 16 latent stages, and 5 look-ahead calls each (165)."""
    kinds = Counter(stage(i, 500, 10) for i in range(500))
    assert kinds["pixel"] == 17 and kinds["latent"] == 16
    assert timesteps(500)[0] == 1 and timesteps(500)[-1] == 999
    for steps in (1, 1000):
        with pytest.raises(ValueError, match="2 to 999 steps"):
            ReSamplePaper(inpainting(8)[0], steps=steps)


@pytest.mark.parametrize("steps", [*range(3, 1000, 37), 334, 501, 600, 999])
def test_a_run_starts_at_pure_noise_whatever_its_steps(steps):
    """Rising, none twice, and to the end: 600 steps once began at timestep 600, from noise for timestep 1000."""
    times = timesteps(steps)
    assert times[0] == 1 and len(times) == steps and all(b > a for a, b in zip(times, times[1:]))
    assert 1000 - max(1000 // steps, 1) <= times[-1] + 1 <= 1000


def test_weight_decay_pulls_pixels_to_the_middle_of_the_value_range():
    """Images count in [-1, 1]: where the data say nothing, the middle stays where it is, and both ends move towards it.
    Once they counted in [0, 2], and all were pulled to the low end: air."""
    prior = replace(inpainting(8)[0], values=Linear(-1000.0, 3000.0)).with_units(4000.0, -1000.0)
    A = Diagonal(torch.eye(8))
    for level in (0.5, 0.0, 1.0):
        image = torch.full((1, 8, 8), level)
        y = Measurement(A(image), torch.ones(1, 8, 8))
        hard = HardConsistency(
            LatentSpace(prior, A, y), A, y, ReSamplePaper(prior, tolerance=-1.0, pixel_iterations=300)
        )
        moved = (prior.decode(hard.pixel(prior.encode(image)), (8, 8)) - image)[0][~torch.eye(8).bool()]
        assert torch.allclose(moved, torch.full_like(moved, 0.0296 * (0.5 - level)), atol=2e-4)


@pytest.mark.parametrize("form", FORMS)
def test_network_calls(form):
    prior, A, y, _, _ = inpainting(8)
    solver = form(prior, steps=50, skip=5, travel=3, pixel_iterations=2, latent_iterations=2)
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    events = sum(stage(i, 50, 5) != "none" for i in range(50))
    assert solution.diagnostics["network_calls"]["denoiser"] == 50 + 3 * events
    assert solution.diagnostics["stages"]["pixel"] + solution.diagnostics["stages"]["latent"] == events
    assert solution.diagnostics["stages"]["none"] == 50 - events
    assert len(solution.residuals) == 50


def case(form):
    prior, A, y, _, _ = inpainting(8)
    solver = form(prior)
    hard = HardConsistency(LatentSpace(prior, A, y), A, y, solver)
    return solver.stepper(), PublishedGuide(hard), prior


def test_a_step_without_consistency_follows_the_flow_exactly():
    """Many steps of the paper from the first third are the probability-flow ODE of the Gaussian prior."""
    steps, guide, prior = case(ReSamplePaper)
    sigmas = steps.levels
    z = start = sigmas[0] * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma, following in zip(sigmas[:100], sigmas[1:101]):
        z, estimate = steps.step(guide, z, sigma, following, None, None)
        assert torch.equal(estimate.image, guide.hard.space.decode(estimate.clean))
    exact = prior.denoiser.flow(start, sigmas[0], sigmas[100])
    assert float((z - exact).norm() / exact.norm()) < 0.02


def test_reference_estimate_is_the_known_wrong_one():
    """(1 - abar) eps instead of its root leaves noise of sqrt(1-abar)(1-sqrt(1-abar))/sqrt(abar) in the estimate."""
    g = torch.Generator().manual_seed(0)
    (right, guide, prior), (wrong, other, _) = case(ReSamplePaper), case(ReSampleReference)
    index = 100  # timestep 201
    a = right.abar(index)
    assert a == pytest.approx(float(published_process().a[201] ** 2))
    x = a**0.5 * prior.denoiser.sample(1, g) + (1 - a) ** 0.5 * torch.randn(1, 1, 8, 8, generator=g)
    gap = wrong.ahead(other, x, index - 1)[1] - right.ddim(guide, x, index, index - 1)[1]
    eps = right.epsilon(guide, x, index - 1)
    torch.testing.assert_close(gap, eps * ((1 - a) ** 0.5 * (1 - (1 - a) ** 0.5) / a**0.5), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_reference_leads_towards_the_data():
    """Minus guidance abar times the gradient of |y - A D(z0)|, here by finite differences."""
    steps, guide, prior = case(ReSampleReference)
    g, index = torch.Generator().manual_seed(0), 250
    x = torch.randn(1, 1, 8, 8, generator=g)
    moved, _ = steps.first(guide, x, index)
    plain = steps.ddim(guide, x, index, index)[0]
    step = (plain - moved).flatten()
    hard = guide.hard

    def misfit(v):
        z0 = steps._handed(guide, v, index, index)[1]
        return float((hard.A(hard.space.decode(z0)) - hard.y.data).square().sum().sqrt() / hard.unit)

    direction = torch.randn(x.shape, generator=g)
    slope = (misfit(x + 1e-2 * direction) - misfit(x - 1e-2 * direction)) / 2e-2
    assert float(step @ direction.flatten()) == pytest.approx(0.5 * steps.abar(index) * slope, rel=0.02)


@pytest.mark.parametrize("form", FORMS)
def test_published_resampling_under_disperses(form):
    """Noise variance after the step: v (v^2 + v s2 + s2^2) / (v + s2)^2 <= v (docs/design/resample.md); ours: v."""
    steps, _, _ = case(form)
    g = torch.Generator().manual_seed(1)
    index, shape = 150, (1, 1, 700, 700)
    a, ap = steps.abar(index), steps.abar(index - 1)
    v = 1 - ap
    s2 = 40 * v / (a if form is ReSamplePaper else 1 - a) * (1 - a / ap)
    assert steps.variance(index) == pytest.approx(s2)
    moved = v**0.5 * torch.randn(shape, generator=g)
    out = steps.resampled(torch.zeros(shape), moved, index, torch.randn(shape, generator=g))
    expected = v * (v**2 + v * s2 + s2**2) / (v + s2) ** 2
    assert float(out.var()) == pytest.approx(expected, rel=0.01)
    assert expected < 0.99 * v
