"""DiffusionMBIR: its step against dense algebra, where ADMM must end, neighbours that know of each other."""

from typing import Any

import pytest
import torch
from gaussian_problems import rms
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.reverse import reverse
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.gaussian import GaussianPrior, IdentityAutoencoder
from medrecon.models.prior import Prior
from medrecon.models.values import Linear
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.proximal.diffusion_mbir import DiffusionMBIR, DiffusionMBIRGuide, Stack, shrunk

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 4)


class Still(Denoiser):
    """A denoiser that sees no noise."""

    sigma_min, sigma_max = 1e-3, 100.0

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        return z


def guide(cg: int = 60, **settings: Any) -> tuple[DiffusionMBIRGuide, Tensor]:
    """The guide of four complex slices of known phases, all unlike, and latents to give it."""
    g = torch.Generator().manual_seed(0)
    phase = torch.polar(torch.ones(4, *SHAPE), 6 * torch.rand(4, *SHAPE, generator=g))
    prior = Prior(IdentityAutoencoder(), Still(), Linear(-1.0, 1.0), "a.u.", "MR", error=0.1).with_phase(phase)
    A = Diagonal(torch.randn(*SHAPE, dtype=torch.complex64, generator=g))
    data = torch.randn(4, *SHAPE, dtype=torch.complex64, generator=g)
    y = Measurement(data, 0.5 + torch.rand(4, *SHAPE, generator=g))
    made = DiffusionMBIR(prior, cg_iterations=cg, steps=3, start=1.0, **settings)
    run = made.prepare(A, y, generator=g, warm=torch.randn(4, *SHAPE, dtype=torch.complex64, generator=g))
    assert isinstance(run.guide, DiffusionMBIRGuide)
    run.guide.data.tolerance = 0.0
    return run.guide, torch.randn(4, 1, *SHAPE, generator=g)


def dense(g: DiffusionMBIRGuide) -> tuple[Tensor, Tensor]:
    """A^H W A and D as matrices of the stack as one vector, D without a row from the last slice to the first."""
    data, phase, n = g.data, g.space.prior.phase, 4 * SHAPE[0] * SHAPE[1]
    assert phase is not None and isinstance(data.A, Diagonal)
    weight = data.A.diagonal.abs().square() * data.y.precision
    chain = torch.eye(4, dtype=torch.complex128)[1:] - torch.eye(4, dtype=torch.complex128)[:-1]
    pixels = torch.eye(n // 4, dtype=torch.complex128)
    return torch.diag(weight.flatten().to(torch.complex128)), torch.kron(chain, pixels) * phase.conj().flatten()


def test_the_step_is_the_dense_solution() -> None:
    """With tau of each pixel, complex images of known phases, and a goal for the differences."""
    made, _ = guide(rho=0.7)
    g = torch.Generator().manual_seed(1)
    v = torch.randn(4, *SHAPE, dtype=torch.complex64, generator=g)
    goal = torch.randn(3, *SHAPE, dtype=torch.complex64, generator=g)
    tau = 0.2 + torch.rand(4, *SHAPE, generator=g)
    x = made.coupled(Stack(made.space.prior.phase), v, tau, made.data.A(v), goal)
    gram, D = dense(made)
    inverse = torch.diag(tau.flatten().double().square().reciprocal()).to(torch.complex128)
    right = made.data.A.adjoint(made.data.y.precision * made.data.y.data).flatten().to(torch.complex128)
    right = right + inverse @ v.flatten().to(torch.complex128)
    right = right + made.rho * D.mH @ goal.flatten().to(torch.complex128)
    exact = torch.linalg.solve(gram + inverse + made.rho * D.mH @ D, right)
    torch.testing.assert_close(x.flatten(), exact.to(torch.complex64), rtol=1e-3, atol=1e-4)


def test_step_after_step_ends_at_the_optimum() -> None:
    """A latent that stays: the x that the steps end at, and u, fulfil the conditions of the minimum of
    |W^(1/2) (A x - y)|^2 + |(x - v) / tau|^2 + 2 rho threshold |D x|_1."""
    made, z = guide(cg=20, rho=1.0, threshold=0.5)
    estimate, now = made(z, 0.5), made
    for _ in range(80):
        now = now.after(estimate)
        estimate = now(z, 0.5)
    x, v = estimate.image, made.space.decode(z)
    assert x is not None
    tau = made.deviation(v, made.data.A(v), 0.5)
    d = Stack(made.space.prior.phase)
    _, u = estimate.split
    gradient = made.data.gradient(x) / made.data.parts + (x - v) / tau.square() + made.rho * d.adjoint(u)
    assert rms(gradient.abs()) < 1e-3 * rms((v / tau.square()).abs())
    moved = d.forward(x)
    on = moved.abs() > 1e-3
    assert 3 < int(on.sum()) < on.numel() - 3, "a case with both kinds of pixels"
    torch.testing.assert_close(u[on], made.threshold * (moved / moved.abs())[on], rtol=1e-2, atol=1e-2)
    assert float(u.abs().max()) < 1.01 * made.threshold
    once = made(z, 0.5).image
    assert once is not None and rms((once - x).abs()) > 1e-2, "one step would have done"


def test_shrinking_keeps_the_phase() -> None:
    d = torch.tensor([3 + 4j, 0.3 - 0.4j, 0j])
    torch.testing.assert_close(shrunk(d, 1.0), torch.tensor([2.4 + 3.2j, 0j, 0j]))


def stack(count: int = 6, size: int = 10, corr: float = 0.98) -> tuple[Prior, Diagonal, Measurement, Tensor, Tensor]:
    """Slices of a smooth Gaussian correlated along the stack, each seen through holes of its own: the posterior mean of
    all of them together and its deviation."""
    prior, g = example_prior((size, size)), torch.Generator().manual_seed(0)
    exact = prior.denoiser
    assert isinstance(exact, GaussianPrior)
    along = corr ** (torch.arange(count)[:, None] - torch.arange(count)).abs().double()
    joint = GaussianPrior(exact.mean.repeat(count), torch.kron(along, exact.covariance), (count, size, size))
    truth = joint.sample(1, g)[0]
    mask = (torch.rand(count, size, size, generator=g) < 0.3).float()
    data = mask * (truth + 0.05 * torch.randn(truth.shape, generator=g))
    seen = mask.flatten().bool()
    mean, cov = joint.posterior(torch.eye(len(seen))[seen], data.flatten()[seen], 0.05)
    y = Measurement(data, mask / 0.05**2)
    return prior, Diagonal(torch.ones(size, size)), y, mean.reshape(truth.shape), cov.diag().sqrt().reshape(truth.shape)


def solve(solver: Any, A: Diagonal, y: Measurement, **options: Any) -> Tensor:
    image: Tensor = solver(A, y, generator=torch.Generator().manual_seed(3), **options).image
    return image


def test_neighbours_bring_the_mean_nearer() -> None:
    """That of the joint posterior; slice by slice one is further off."""
    prior, A, y, mean, _ = stack()
    law: dict[str, Any] = {"steps": 30, "start": 100.0, "end": 1e-3, "eta": 1.0}
    error = lambda solver: rms(solve(solver, A, y) - mean)  # noqa: E731
    coupled = error(DiffusionMBIR(prior, **law, rho=1.0, threshold=0.5))
    assert coupled < 0.85 * error(DDS(prior, **law))
    assert error(DiffusionMBIR(prior, **law, rho=0.0)) > 1.1 * coupled


def test_a_mirrored_stack_gives_the_mirrored_image() -> None:
    prior, A, y, _, _ = stack(4)
    solver, warm = (
        DiffusionMBIR(prior, steps=5, rho=1.0),
        torch.randn(4, 10, 10, generator=torch.Generator().manual_seed(1)),
    )
    back = Measurement(y.data.flip(0), y.precision.flip(0))
    there = solve(solver, A, y, warm=warm)
    mirrored = solve(solver, A, back, warm=warm.flip(0)).flip(0)
    torch.testing.assert_close(mirrored, there, rtol=1e-3, atol=1e-3)
    assert rms(there - solve(solver, A, y, warm=warm.flip(0))) > 1e-2, "the start does not matter"


def test_the_ends_are_no_neighbours() -> None:
    """What the first of four slices measures moves the others the less the further they are, the last one least."""
    made, _ = guide(rho=1.0)
    v = torch.zeros(4, *SHAPE, dtype=torch.complex64)
    goal, tau = torch.zeros(3, *SHAPE, dtype=torch.complex64), torch.ones(4, *SHAPE)
    first = torch.zeros_like(made.data.y.data)
    first[0] = 1.0
    made.data.y = Measurement(first, made.data.y.precision)
    x = made.coupled(Stack(None), v, tau, made.data.A(v), goal)
    size = [rms(one.abs()) for one in x]
    assert size[0] > size[1] > size[2] > size[3] > 0


def test_one_slice_is_dds() -> None:
    prior, A, one, _, _ = stack(1)
    assert torch.equal(solve(DiffusionMBIR(prior, steps=4), A, one), solve(DDS(prior, steps=4), A, one))


def test_a_stack_goes_on_to_the_same_bits() -> None:
    """The split is in the state: without it the end is another."""
    prior, A, y, _, _ = stack(3)
    warm = torch.zeros_like(y.data) + torch.arange(3.0)[:, None, None]
    prepare = lambda: DiffusionMBIR(prior, steps=5).prepare(  # noqa: E731
        A, y, generator=torch.Generator().manual_seed(2), warm=warm
    )
    run = prepare()
    whole = reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start)
    first = prepare()
    seen: list[int] = []
    stop = lambda e: seen.append(1) or len(seen) == 2  # type: ignore[func-returns-value]  # noqa: E731
    state = reverse(first.guide, first.sampler, first.sigmas, first.draw, first.start, stop)
    assert state.step == 2 and state.before is not None
    end = lambda s: reverse(prepare().guide, run.sampler, run.sigmas, prepare().draw, s).z  # noqa: E731
    assert torch.equal(end(state), whole.z)
    assert not torch.equal(end(state._replace(before=state.before._replace(split=()))), whole.z)


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"rho": -1.0}, {"threshold": -0.1}, {"eta": 2.0}):
        with pytest.raises(ValueError, match="expected"):
            DiffusionMBIR(example_prior((4, 4)), **bad)  # type: ignore[arg-type]
    assert DiffusionMBIR.paper(example_prior((4, 4))).sampler == "pc"
