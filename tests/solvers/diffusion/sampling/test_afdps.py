"""AFDPS: its potential and its weights in closed form, and the ensemble against the exact Gaussian posterior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gaussian_problems import inpainting, rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Independent
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.reverse import reverse
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.posterior import SampledSolver
from medrecon.solvers.diffusion.proximal.score_sde import ScoreSDE
from medrecon.solvers.diffusion.sampling.afdps import AFDPS, Particles, PotentialGuide, survivors
from medrecon.solvers.diffusion.sampling.pula import PULA

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_the_potential_and_its_gradient(kind: str, generator: torch.Generator) -> None:
    """|A z - y|^2 / (2 sigma_y^2 + 2 gamma^2 sigma^2), sigma_y^2 that of a real number."""
    gamma, sigma, noise, mask = 0.7, 0.4, 0.2, (torch.arange(12).reshape(3, 4) % 3 > 0).float()
    prior, dtype, parts = example_prior((3, 4)), torch.float32, 1
    if kind == "complex":
        autoencoder, dtype, parts = IdentityAutoencoder(complex=True), torch.complex64, 2
        prior = Prior(autoencoder, smooth_gaussian((2, 3, 4)), Linear(-1.0, 1.0), "a.u.", "MR", error=0.0)
        mask = torch.polar(mask, torch.linspace(0, 5, 12).reshape(3, 4))
    A, data = Diagonal(mask), torch.randn(1, 3, 4, dtype=dtype, generator=generator)
    data = data * (mask.abs() > 0)
    y = Measurement(data, (mask.abs() / noise**2)[None])
    z = torch.randn(1, parts, 3, 4, generator=generator).requires_grad_(True)
    per_number = noise**2 / parts
    U = (A(prior.decode(z, (3, 4))) - data).abs().square().sum() / (2 * per_number + 2 * gamma**2 * sigma**2)
    (slope,) = torch.autograd.grad(U, z)
    space = LatentSpace(prior, A, y)
    with torch.no_grad():
        found = PotentialGuide(space, DataConsistency(A, y), torch.tensor([parts**0.5]), gamma)(z, sigma)
    assert found.log_weight is not None
    torch.testing.assert_close(-found.log_weight, U.detach().double()[None], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.target - found.clean, -(sigma**2) * slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_weights_undo_the_guidance_and_follow_the_potential(least: float) -> None:
    """Two steps of one number: whatever the guidance, the weighted particles are N(0, s^2) exp(-z^2 / (8 s^2))."""

    class Pulled(Guide):
        def __call__(self, z: Tensor, sigma: float) -> Estimate:
            zero = torch.zeros_like(z)
            return Estimate(zero, zero + 0.8, z[:, 0], sigma, -z.double().square().flatten() / (8 * sigma**2))

    draw = Independent(torch.Generator().manual_seed(0), each=100_000)
    z, before = 2 * draw(torch.empty(100_000, 1)), None
    for sigma, following in ((2.0, 1.5), (1.5, 1.0)):
        z, before = Particles(least).step(Pulled(), z, sigma, following, before, draw)
    _, end = Particles(least).step(Pulled(), z, 1.0, 0.0, before, draw)
    assert end.image is not None
    assert float(end.image.mean()) == pytest.approx(0, abs=0.015)
    assert float(end.image.square().mean()) == pytest.approx(0.8, abs=0.015)  # 1 / (1 + 1 / 4)


def test_survivors_are_as_many_as_they_weigh() -> None:
    weights = torch.tensor([[0.5, 0.0], [0.25, 0.0], [0.25, 0.0], [0.0, 1.0]], dtype=torch.float64)
    index = survivors(weights.log(), torch.tensor([0.3, 0.9], dtype=torch.float64))
    assert index.T.tolist() == [[0, 0, 1, 2], [3, 3, 3, 3]]


def gap(cls: type[AFDPS]) -> tuple[float, float]:
    prior, A, y, mean, deviation = inpainting(2, 0.3)
    solver = cls(prior, samples=4000, steps=100, start=20.0, end=2e-2)
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    return rms(solution.image[0] - mean) / rms(deviation), rms(solution.diagnostics["deviation"][0]) / rms(deviation)


def test_the_ensemble_samples_the_exact_posterior() -> None:
    centre, spread = gap(AFDPS)
    assert centre < 0.2 and 0.85 < spread < 1.1


def test_without_weights_it_does_not() -> None:
    class Alike(PotentialGuide):
        def __call__(self, z: Tensor, sigma: float) -> Estimate:
            found = super().__call__(z, sigma)
            assert found.log_weight is not None
            return found._replace(log_weight=0 * found.log_weight)

    class Mutant(AFDPS):
        def guide(self, task: Task) -> Alike:
            return Alike(**vars(super().guide(task)))

    centre, spread = gap(Mutant)
    assert centre > 0.5 or spread > 1.3


@pytest.mark.parametrize("cls", [AFDPS, PULA, ScoreSDE])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(cls: type[SampledSolver]) -> None:
    """What the particles weigh, and all noise, is in the state."""
    prior, A, y, _, _ = inpainting(4, 0.3)
    solver = cls(prior, samples=6, steps=6, start=2.0, end=0.1)
    with torch.no_grad():
        run, other = (solver.prepare(A, y, generator=torch.Generator().manual_seed(3)) for _ in range(2))
        whole = reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start)
        seen: list[Estimate] = []
        stop = lambda e: seen.append(e) or len(seen) == 3  # noqa: E731
        part = reverse(other.guide, other.sampler, other.sigmas, other.draw, other.start, stop)
        for g in other.draw.generators:
            g.manual_seed(99)
        done = reverse(other.guide, other.sampler, other.sigmas, other.draw, part)
    assert part.step == 3 and done.step == whole.step and torch.equal(done.z, whole.z)


def test_bad_settings_are_refused() -> None:
    for settings, complaint in (
        ({"gamma": 0.0}, "gamma > 0"),
        ({"least": 2.0}, "from 0 to 1"),
        ({"steps": 0}, "steps >= 1"),
    ):
        with pytest.raises(ValueError, match=complaint):
            replace(AFDPS(example_prior()), **settings)
