"""DDS in both settings: its proximal step against dense algebra, any sampler, a run that was stopped, a given start."""

import pytest
import torch
from gaussian_problems import inpainting, rms

from medrecon.coils.combine import birdcage_maps
from medrecon.core.measurement import Measurement
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.reverse import reverse
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import IdentityAutoencoder, smooth_gaussian
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.diffusion.base import DiffusionSolver
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.proximal.dds_paper import DDSPaper, DDSPaperGuide
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.diffusion.resample.paper import ReSamplePaper

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLERS = [("ddim", 0.85), ("ancestral", 1.0), ("heun", 0.0), ("multistep", 0.0)]


def complex_case() -> tuple[Prior, CartesianMRI, Measurement]:
    g, shape = torch.Generator().manual_seed(0), (6, 7)
    A = CartesianMRI(birdcage_maps(3, shape, g), (torch.rand(shape, generator=g) < 0.5).float())
    data = A(torch.randn(2, *shape, dtype=torch.complex64, generator=g))
    precision = (A.mask[:, None] * (0.5 + torch.rand(2, *A.out_shape, generator=g))).expand(2, *A.out_shape)
    prior = Prior(IdentityAutoencoder(complex=True), smooth_gaussian((2, *shape)), Linear(-1.0, 1.0), "a.u.", "MR", 0.0)
    return prior, A, Measurement(data, precision)


def test_the_published_step_is_the_dense_solution_for_complex_images() -> None:
    """(I + gamma A^H A) x = v + gamma A^H y with A of norm 1; five steps are not there yet, and what the noise is does
    not matter."""
    prior, A, y = complex_case()
    dense = A(torch.eye(42, dtype=torch.complex64).reshape(42, 6, 7)).flatten(1).T.to(torch.complex128) / A.norm()
    v = torch.randn(2, 6, 7, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    left = torch.eye(42) + 30.0 * dense.mH @ dense
    right = v.flatten(1).T + 30.0 * dense.mH @ (y.data / A.norm()).flatten(1).T.to(torch.complex128)
    exact = torch.linalg.solve(left, right).T.reshape(2, 6, 7).to(torch.complex64)

    def step(iterations: int, precision: torch.Tensor) -> torch.Tensor:
        solver, m = DDSPaper(prior, gamma=30.0, cg_iterations=iterations), Measurement(y.data, precision)
        guide = DDSPaperGuide(LatentSpace(prior, A, m), solver.consistency(A, m), solver.gamma)
        z = guide.space.encode(v)
        object.__setattr__(guide.space.prior, "denoiser", Still())
        image = guide(z, 0.5).image
        assert image is not None
        return image

    torch.testing.assert_close(step(100, y.precision), exact, rtol=1e-3, atol=1e-3)
    few = step(5, y.precision)
    assert 1e-3 < float((few - exact).norm() / exact.norm()) < 0.2
    torch.testing.assert_close(step(5, 7 * y.precision), few)


class Still(Denoiser):
    """A denoiser that sees no noise."""

    sigma_min, sigma_max = 1e-3, 100.0

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return z


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
@pytest.mark.parametrize("make", [DDS, DDSPaper, ReSample])
def test_any_sampler_comes_near_the_posterior_mean(make: type[DiffusionSolver], sampler: str, eta: float) -> None:
    """The mean of three draws is nearer than the data alone; without them (the control) one is far."""
    prior, A, y, mean, _ = inpainting(10)
    more = {"gamma": 40.0} if make is DDSPaper else {"start": 100.0}
    solver = make(prior, steps=40, sampler=sampler, eta=eta, **more)  # type: ignore[call-arg]
    draw = lambda m, k: solver(A, m, generator=torch.Generator().manual_seed(k)).image[0]  # noqa: E731
    error = rms(torch.stack([draw(y, k) for k in range(3)]).mean(0) - mean)
    assert error < 0.75 * rms(y.data[0] - mean)
    blind = Measurement(0 * y.data, y.precision * (1e-12 if make is not DDSPaper else 1.0))
    assert rms(draw(blind, 0) - mean) > 1.3 * error


@pytest.mark.parametrize(
    "solver",
    [
        DDS(inpainting()[0], steps=6, start=100.0),
        ReSample(inpainting()[0], steps=6, eta=0.5),
        ReSample(inpainting()[0], steps=6, sampler="heun", eta=1.0, antithetic=False),
        ReSamplePaper(inpainting()[0], steps=12, skip=2, travel=2, pixel_iterations=3, latent_iterations=3),
    ],
    ids=["dds", "resample", "resample heun", "resample-paper"],
)
def test_a_solver_goes_on_to_the_same_bits(solver: DiffusionSolver) -> None:
    _, A, y, _, _ = inpainting()
    prepare = lambda: solver.prepare(A, y, generator=torch.Generator().manual_seed(2))  # noqa: E731
    run = prepare()
    whole = reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start)
    for stop in (1, 3, 5):
        first, seen = prepare(), []
        state = reverse(
            first.guide,
            first.sampler,
            first.sigmas,
            first.draw,
            first.start,
            lambda e: seen.append(1) or len(seen) == stop,  # noqa: B023
        )
        other = prepare()
        done = reverse(other.guide, other.sampler, other.sigmas, other.draw, state)
        assert state.step == stop and torch.equal(done.z, whole.z)
        assert torch.equal(solver.image(other, done)[0], solver.image(run, whole)[0])


def test_a_start_may_be_given() -> None:
    """In place of total variation; the nearer it is, the nearer the end."""
    prior, A, y, mean, _ = inpainting()
    solve = lambda warm: ReSample(prior, start=0.3)(A, y, generator=torch.Generator(), warm=warm).image[0]  # noqa: E731
    own, far, near = (rms(solve(warm) - mean) for warm in (None, torch.zeros_like(mean)[None], mean[None]))
    assert near < own < far


def test_settings_out_of_range_are_refused() -> None:
    prior = inpainting(8)[0]
    for bad in ({"gamma": 0.0}, {"cg_iterations": 0}, {"steps": 0}, {"start": -1.0}, {"eta": 2.0}):
        with pytest.raises(ValueError, match=r"expected"):
            DDSPaper(prior, **bad)  # type: ignore[arg-type]
