"""DPS, PiGDM, DiffPIR, DAPS and others against the exact Gaussian posterior: mean, spread, samplers, latents.

Errors are relative to the posterior's deviation, 0.2 of the prior's; 32 samples leave 0.18 of the mean to chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from gaussian_problems import Problem, complex_pixels, folded_pixels, gap, pixels, rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Draw
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.solvers.diffusion.base import Task
from medrecon.solvers.diffusion.gradient.dps import DPS
from medrecon.solvers.diffusion.gradient.pigdm import PiGDM
from medrecon.solvers.diffusion.gradient.psld import PSLD, PSLDGuide
from medrecon.solvers.diffusion.posterior import PosteriorSolver
from medrecon.solvers.diffusion.proximal.daps import DAPS
from medrecon.solvers.diffusion.proximal.diffpir import DiffPIR
from medrecon.solvers.diffusion.proximal.flowchef import FlowChef
from medrecon.solvers.diffusion.proximal.latino import LATINO

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLES = 32
NOISE: dict[str, Any] = {"start": None, "end": 1e-3}
"""from pure noise to next to none"""


class Bounds(NamedTuple):
    """What a run must keep: error of the mean at most, spread from and to."""

    mean: float
    low: float
    high: float


SAMPLES_OF: dict[type[PosteriorSolver], dict[str, Any]] = {DPS: {"step": 1.0}}
"""Settings for a sample, where the default is that of a mean."""
RUNS: list[tuple[type[PosteriorSolver], int, str, float, Bounds]] = [
    (DPS, 100, "ddim", 1.0, Bounds(0.6, 0.8, 1.2)),
    (DPS, 100, "ancestral", 1.0, Bounds(0.6, 0.8, 1.2)),
    (PSLD, 100, "ddim", 1.0, Bounds(0.6, 0.8, 1.2)),
    (LATINO, 200, "renoise", 1.0, Bounds(0.65, 0.65, 0.95)),
    (FlowChef, 100, "ddim", 0.0, Bounds(0.8, 0.85, 1.3)),
    (DPS, 100, "ddim", 0.0, Bounds(0.8, 0.7, 1.1)),
    (DPS, 60, "heun", 0.0, Bounds(0.9, 0.7, 1.2)),
    (DPS, 60, "multistep", 0.0, Bounds(0.9, 0.7, 1.2)),
    (PiGDM, 100, "ddim", 1.0, Bounds(0.5, 0.75, 1.1)),
    (PiGDM, 100, "ancestral", 1.0, Bounds(0.5, 0.75, 1.1)),
    (PiGDM, 60, "heun", 0.0, Bounds(0.6, 0.6, 1.1)),
    (PiGDM, 60, "multistep", 0.0, Bounds(0.6, 0.6, 1.1)),
    (DiffPIR, 200, "renoise", 1.0, Bounds(0.6, 0.6, 1.0)),
    (DiffPIR, 100, "ddim", 1.0, Bounds(1.9, 1.2, 2.0)),
    (DiffPIR, 100, "ancestral", 1.0, Bounds(1.9, 1.2, 2.0)),
    (DiffPIR, 60, "heun", 0.0, Bounds(2.4, 1.5, 2.6)),
    (DiffPIR, 60, "multistep", 0.0, Bounds(2.4, 1.5, 2.6)),
    (DAPS, 200, "renoise", 1.0, Bounds(0.6, 0.85, 1.15)),
    (DAPS, 100, "ddim", 1.0, Bounds(1.9, 1.2, 2.0)),
    (DAPS, 100, "ancestral", 1.0, Bounds(1.9, 1.2, 2.0)),
]


def kept(found: tuple[float, float], bounds: Bounds) -> bool:
    return found[0] < bounds.mean and bounds.low < found[1] < bounds.high


@pytest.mark.parametrize(("solver", "steps", "sampler", "eta", "bounds"), RUNS)
def test_mean_and_spread_under_each_sampler(
    solver: type[PosteriorSolver], steps: int, sampler: str, eta: float, bounds: Bounds
) -> None:
    prior = pixels().prior
    run = solver(prior, steps=steps, sampler=sampler, eta=eta, samples=SAMPLES, **NOISE, **SAMPLES_OF.get(solver, {}))
    found = gap(run, pixels())
    assert kept(found, bounds), found


BEST = {cls: next(run for run in RUNS if run[0] is cls) for cls in (DPS, PiGDM, DiffPIR, DAPS, FlowChef, PSLD, LATINO)}


@pytest.mark.parametrize("problem", [complex_pixels, folded_pixels])
@pytest.mark.parametrize("cls", BEST)
def test_complex_images_and_latents(problem: Callable[[], Problem], cls: type[PosteriorSolver]) -> None:
    _, steps, sampler, eta, bounds = BEST[cls]
    law: dict[str, Any] = {"steps": steps, "sampler": sampler, "eta": eta, **NOISE, **SAMPLES_OF.get(cls, {})}
    found = gap(cls(problem().prior, samples=SAMPLES, **law), problem())
    assert kept(found, bounds), found


@dataclass(frozen=True, eq=False)
class Misled(Guide):
    """D(z) + factor(sigma) times what the guide adds to it."""

    guide: Guide
    denoise: Callable[[Tensor, float], Tensor]
    factor: Callable[[float], float]

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        estimate, plain = self.guide(z, sigma), self.denoise(z, sigma)
        moved = [torch.lerp(plain, v, self.factor(sigma)) for v in (estimate.clean, estimate.target)]
        return estimate._replace(clean=moved[0], target=moved[1], image=moved[1][:, 0])


@pytest.mark.parametrize(
    ("cls", "factor"),
    [
        (DPS, lambda sigma: -0.5),  # uphill
        (DPS, lambda sigma: 0.03),  # a step that forgets its unit
        (PiGDM, lambda sigma: min(1, sigma)),  # sigma^2 twice, where it is small
        (PiGDM, lambda sigma: 0.3),
        (DiffPIR, lambda sigma: 0.3),
        (DAPS, lambda sigma: 0.3),
        (PSLD, lambda sigma: 0.03),
        (LATINO, lambda sigma: 0.3),
        (FlowChef, lambda sigma: 0.1),
        (FlowChef, lambda sigma: -0.5),
    ],
)
def test_a_mutant_fails(cls: type[PosteriorSolver], factor: Callable[[float], float]) -> None:
    class Mutant(cls):  # type: ignore[misc, valid-type]
        def guide(self, task: Task) -> Misled:
            return Misled(super().guide(task), task.space.denoise, factor)

    _, steps, sampler, eta, bounds = BEST[cls]
    mutant = Mutant(pixels().prior, steps=steps, sampler=sampler, eta=eta, samples=SAMPLES, **NOISE)
    assert wrong(mutant, bounds)


def wrong(mutant: PosteriorSolver, bounds: Any) -> bool:
    """Whether a mutant is told from the method, or diverges, which is a named error."""
    try:
        return not kept(gap(mutant, pixels()), bounds)
    except ValueError as error:
        return "diverge" in str(error)


def test_daps_without_its_draws_loses_its_spread() -> None:
    class Still(DataConsistency):
        def drawn(self, v: Tensor, tau: Tensor, draw: Draw) -> Tensor:
            return self.prox(v, tau)

    class Mutant(DAPS):
        def consistency(self, A: LinearOperator, y: Measurement) -> Still:
            return Still(A, y)

    found = gap(Mutant(pixels().prior, steps=200, samples=SAMPLES, **NOISE), pixels())
    assert not kept(found, BEST[DAPS][-1]), found


def test_the_gluing_term_is_the_derivative_it_says() -> None:
    """Of |z0 - E(x')|^2 / 2 with x' = x - s A^T W (A x - y), which is |s A^T W (A z0 - y)|^2 / 2 without a loss."""
    prior, A, y, _, _ = pixels()
    space, data = LatentSpace(prior, A, y), DataConsistency(A, y)
    guide = PSLDGuide(space, data, torch.full((1, 16, 16), 2.0), torch.full((1,), 1e-3), 0.1)
    z0 = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    seen, s = y.precision[0], 4e-3
    torch.testing.assert_close(guide.unglued(z0)[0, 0], s**2 * seen * seen * (z0[0, 0] - y.data[0]))


def test_gluing_holds_what_the_decoder_does_not_see() -> None:
    """A channel that the decoder ignores and the encoder gives as 0 is drawn there."""

    class Blind(IdentityAutoencoder):
        def encode(self, u: Tensor) -> Tensor:
            return torch.stack([u, 0 * u], 1)

        def decode(self, z: Tensor) -> Tensor:
            return z[:, 0]

    _, A, y, _, _ = pixels()
    prior = replace(pixels().prior, autoencoder=Blind(), denoiser=smooth_gaussian((2, 16, 16)))
    guide = PSLDGuide(LatentSpace(prior, A, y), DataConsistency(A, y), torch.ones(1, 16, 16), torch.zeros(1), 1.0)
    z0 = torch.ones(1, 2, 16, 16)
    gradient = guide.unglued(z0)
    torch.testing.assert_close(gradient[:, 1], z0[:, 1])
    assert not bool(gradient[:, 0].any())


def test_what_the_noise_is_does_not_matter_to_the_step_of_dps() -> None:
    """Where the data say all and the prior is wide, a step of any noise is the same, so that none diverges."""
    prior = pixels().prior
    seen = Diagonal(torch.ones(16, 16))
    data = torch.linspace(-1, 1, 256).reshape(1, 16, 16)
    for noise in (1e-3, 0.03, 1.0):
        y = Measurement(data, torch.full((1, 1, 1), noise**-2))
        solver = DPS(prior, steps=60, start=None, eta=1.0, step=1.0)
        image = solver(seen, y, generator=torch.Generator().manual_seed(0)).image
        assert rms(image - data) < 2 * noise + 0.02


def test_the_published_settings() -> None:
    prior = pixels().prior
    assert [len(cls.paper(prior).levels()) - 1 for cls in (DPS, PiGDM, DiffPIR, DAPS)] == [1000, 100, 100, 200]
    assert all(
        cls.paper(prior).levels()[0] == pytest.approx(prior.denoiser.sigma_max) for cls in (DPS, PiGDM, DiffPIR, DAPS)
    )
    assert DiffPIR.paper(prior).eta ** 2 == pytest.approx(0.1)


def test_bad_settings_are_refused() -> None:
    prior = pixels().prior
    for make, complaint in (
        (lambda: DPS(prior, step=0.0), "step > 0"),
        (lambda: DPS(prior, samples=0), "samples >= 1"),
        (lambda: DiffPIR(prior, weight=-1.0), "weight > 0"),
        (lambda: DAPS(prior, flow_steps=0), "flow_steps >= 1"),
        (lambda: DAPS(prior, sampler="heun", eta=0.0), "gets samples"),
    ):
        with pytest.raises(ValueError, match=complaint):
            make()
