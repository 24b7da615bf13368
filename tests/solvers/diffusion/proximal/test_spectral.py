"""DDRM and DDNM: their noise level by level, against the exact posterior, and what they refuse."""

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
from medrecon.diffusion.draw import Independent
from medrecon.diffusion.guide import Estimate
from medrecon.diffusion.latent import LatentSpace
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.diffusion.base import Task, example_prior
from medrecon.solvers.diffusion.proximal.ddnm import DDNM, DDNMStep
from medrecon.solvers.diffusion.proximal.ddrm import DDRM, DDRMStep
from medrecon.solvers.diffusion.proximal.spectral import SpectralGuide, SpectralSolver

pytestmark = pytest.mark.usefixtures("one_thread")
ENDS: dict[str, Any] = {"start": None, "end": 1e-3, "samples": 16}


def solver(cls: type[Any], prior: Prior) -> Any:
    return cls(prior, **ENDS, **({"steps": 60, "eta": 1.0} if issubclass(cls, DDRM) else {"steps": 15, "repeats": 5}))


def kept(found: tuple[float, float]) -> bool:
    return found[0] < 0.9 and 0.75 < found[1] < 1.2


@pytest.mark.parametrize(("cls", "problem"), [(DDRM, complex_pixels), (DDNM, complex_pixels), (DDRM, folded_pixels)])
def test_mean_and_spread(cls: type[SpectralSolver], problem: Callable[[], Problem]) -> None:
    found = gap(solver(cls, problem().prior), problem())
    assert kept(found), found


class Timid(SpectralGuide):
    """Goes a third of the way to the data."""

    def moved(self, estimate: Estimate, weight: Tensor) -> Tensor:
        return super().moved(estimate, weight / 3)


@pytest.mark.parametrize("cls", [DDRM, DDNM])
def test_data_met_by_a_third_do_not(cls: type[SpectralSolver]) -> None:
    class Mutant(cls):  # type: ignore[misc, valid-type]
        def guide(self, task: Task) -> Timid:
            return Timid(**vars(super().guide(task)))

    found = gap(solver(Mutant, pixels().prior), pixels())
    assert not kept(found), found


def phased() -> tuple[CartesianMRI, Prior]:
    """One coil with a phase, every other column, and a prior of complex images of mean 0 and variance 1 a part."""
    g = torch.Generator().manual_seed(0)
    mask = (torch.arange(6) % 2 == 0).float().expand(4, 6)
    A = CartesianMRI(birdcage_maps(1, (4, 6), g), mask)
    exact = GaussianPrior(torch.zeros(48).double(), torch.eye(48).double(), (2, 4, 6))
    return A, Prior(IdentityAutoencoder(complex=True), exact, Linear(-1.0, 1.0), "a.u.", "MR", error=0.0)


NOISE = {"sharp": 0.1, "blunt": 3.0}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("step", [DDRMStep(0.8, 1.0), DDRMStep(0.8, 0.7), DDNMStep(1)], ids=str)
def test_a_step_leaves_as_much_noise_as_its_level_has(step: DDRMStep | DDNMStep, noise: str) -> None:
    """x is sigma n0 away from where the denoiser, here perfect, sees it; the data have noise of their own. A step that
    counts both rightly ends at x + sigma' n in every component, measured or not, complex as it is."""
    count, sigma, following = 300, 1.0, 0.6
    A, prior = phased()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 6, dtype=torch.complex64, generator=g)
    sampled = A.sampled.float()
    n = torch.randn((count, 1, 4, 6), dtype=torch.complex64, generator=g)
    y = Measurement(A(x) + NOISE[noise] * n * sampled, sampled / NOISE[noise] ** 2)
    perfect = replace(prior, denoiser=Known(prior.encode(x)[0]))
    assert A.spectrum is not None
    guide = SpectralGuide.of(LatentSpace(perfect, A, y[:1]), A.spectrum, y, torch.full((count,), 2**0.5))
    draw = Independent(torch.Generator().manual_seed(2), each=count)
    z = prior.encode(x) + sigma * draw(torch.empty(count, 2, 4, 6))
    after, _ = step.step(guide, z, sigma, following, None, draw)
    left = guide.spectrum.components(torch.complex(*(after - prior.encode(x)).unbind(1)))[:, 0]
    assert float(left.mean(0).abs().max()) < 0.2
    for columns in (left[..., ::2], left[..., 1::2]):  # measured and not
        for part in (columns.real, columns.imag):
            assert float(part.std()) == pytest.approx(following, rel=0.04)


class Known(GaussianPrior):
    """A denoiser that knows the image, z0 (C, h, w)."""

    def __init__(self, z0: Tensor) -> None:
        n = z0.numel()
        super().__init__(z0.flatten().double(), torch.zeros((n, n)).double(), tuple(z0.shape))  # type: ignore[arg-type]


def test_several_coils_are_refused_with_the_reason() -> None:
    A = CartesianMRI(birdcage_maps(2, (8, 8), torch.Generator()), torch.ones(8, 8))
    prior = Prior(IdentityAutoencoder(complex=True), smooth_gaussian((2, 8, 8)), Linear(-1, 1), "a.u.", "MR", error=0.0)
    y = Measurement(torch.zeros((1, 2, 8, 8), dtype=torch.complex64), torch.ones(1))
    for cls in (DDRM, DDNM):
        with pytest.raises(ValueError, match=rf"{cls.name} works on single components.*CartesianMRI.*dds, diffpir"):
            cls(prior)(A, y, generator=torch.Generator())
        assert not A.calls.images


def test_bad_settings_are_refused() -> None:
    prior = example_prior()
    for make, complaint in (
        (lambda: DDRM(prior, eta=1.5), "eta and eta_b from 0 to 1"),
        (lambda: DDNM(prior, repeats=0), "repeats >= 1"),
    ):
        with pytest.raises(ValueError, match=complaint):
            make()
    assert [len(cls.paper(prior).levels()) for cls in (DDRM, DDNM)] == [21, 101]
