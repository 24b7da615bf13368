"""Score-based SDEs: their levels, and the projection against the exact Gaussian posterior."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gaussian_problems import inpainting, rms

from medrecon.diffusion.consistency import DataConsistency
from medrecon.diffusion.draw import Independent
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.schedules import sub_vp_uniform, vp_uniform
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.proximal.score_sde import ProjectionGuide, ScoreSDE

pytestmark = pytest.mark.usefixtures("one_thread")


def gap(cls: type[ScoreSDE], process: str = "ve", steps: int = 100) -> tuple[float, float]:
    prior, A, y, mean, deviation = inpainting()
    solver = cls(prior, samples=24, steps=steps, start=None, end=1e-3, process=process)  # type: ignore[arg-type]
    solution = solver(A, y, generator=torch.Generator().manual_seed(0))
    return rms(solution.image[0] - mean) / rms(deviation), rms(solution.diagnostics["deviation"][0]) / rms(deviation)


@pytest.mark.parametrize("process", ["ve", "vp", "sub-vp"])
def test_mean_and_spread(process: str) -> None:
    """What is not seen learns of the data by the following steps alone: better than no data at all, and not exact."""
    centre, spread = gap(ScoreSDE, process)
    assert centre < 1.5 and 1.0 < spread < 1.7


def test_a_projection_that_trusts_the_noisy_image_too_much_does_not() -> None:
    class Mutant(ScoreSDE):
        def guide(self, task: Task) -> ProjectionGuide:
            found = super().guide(task)
            return replace(found, deviation=0.1 * found.deviation)

    centre, spread = gap(Mutant)
    assert centre > 1.5 or not 1.0 < spread < 1.7


def test_the_projected_latent_has_the_noise_of_its_level() -> None:
    """Where seen, y + sigma n, as far as the data are sharper than that; where not, as it was."""
    prior, A, y, _, _ = inpainting(4, 0.3)
    sigma, count = 0.6, 4000
    many, draw = y.repeated(count), Independent(torch.Generator().manual_seed(0), each=count)
    guide = ProjectionGuide(LatentSpace(prior, A, y), DataConsistency(A, many), torch.ones(count), draw)
    z = torch.ones(count, 1, 4, 4)
    estimate = guide(z, sigma)
    met = (z - estimate.clean + estimate.target)[:, 0]
    weight = sigma**2 / (sigma**2 + 0.3**2)
    seen = A.diagonal > 0
    torch.testing.assert_close(met[:, ~seen], torch.ones_like(met[:, ~seen]))
    expected = (1 - weight) + weight * y.data[0][seen]
    torch.testing.assert_close(met[:, seen].mean(0), expected, rtol=0, atol=0.04)
    torch.testing.assert_close(met[:, seen].std(0), torch.full_like(expected, weight * sigma), rtol=0.05, atol=0)


def test_the_time_of_the_sub_variance_preserving_process() -> None:
    """sigma = (1 - a^2) / a with a of the variance-preserving process, sigma = sqrt(1 - a^2) / a, at the same times."""
    low, high = (math.sqrt(math.expm1(b)) for b in (0.01, 9.0))
    a = (1 + vp_uniform(9, low, high)[:-1].square()).rsqrt()
    sub = sub_vp_uniform(9, *((2 * math.sinh(b / 2)) for b in (0.01, 9.0)))[:-1]
    torch.testing.assert_close(sub, (1 - a.square()) / a)


def test_the_published_settings_and_bad_ones() -> None:
    prior = example_prior()
    paper = ScoreSDE.paper(prior)
    assert len(paper.levels()) == 1001 and paper.sampler == "pc" and paper.levels()[0] == pytest.approx(100)
    with pytest.raises(ValueError, match="there are: ve, vp, sub-vp"):
        ScoreSDE(prior, process="other")  # type: ignore[arg-type]
