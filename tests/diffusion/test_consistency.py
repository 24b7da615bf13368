"""Data consistency: the proximal point against dense algebra, its weight from the misfit, the value maps behind it."""

from dataclasses import dataclass, replace

import pytest
import torch

from medrecon.core.measurement import Measurement
from medrecon.diffusion.anneal import Anneal
from medrecon.diffusion.consistency import SHARE, DataConsistency
from medrecon.diffusion.draw import Independent
from medrecon.diffusion.latent import LatentSpace
from medrecon.diffusion.trust import PixelError, posterior_variance
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.models.denoiser import Denoiser
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.prior import Prior
from medrecon.models.values import Asinh, Linear, ValueMap
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator
from medrecon.solvers.diffusion.base import example_prior
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.proximal.diffusion_mbir import DiffusionMBIR
from medrecon.solvers.diffusion.resample.fast import ReSample

SHAPE = (7, 9)


def problem(noise: float = 0.1) -> tuple[LinearOperator, Measurement, torch.Tensor]:
    """A small CT scan of two slices with unequal weights, and the truth."""
    g = torch.Generator().manual_seed(0)
    A = CTOperator(ParallelGeometry((0.1, 0.9, 1.7, 2.5), 13, 1.0), ImageGrid(SHAPE, (1.0, 1.0)))
    truth = torch.rand(2, *SHAPE, generator=g)
    sigma = noise * (0.5 + torch.rand(1, *A.out_shape, generator=g))
    y = A(truth) + sigma * torch.randn(2, *A.out_shape, generator=g)
    return A, Measurement(y, sigma**-2), truth


def test_prox_is_the_dense_posterior_mean_for_a_deviation_of_every_pixel():
    A, y, truth = problem()
    g = torch.Generator().manual_seed(1)
    tau = 0.01 + torch.rand(2, *SHAPE, generator=g)
    v = truth + tau * torch.randn(2, *SHAPE, generator=g)
    x = DataConsistency(A, y, iterations=300, tolerance=1e-7).prox(v, tau)
    matrix = A(torch.eye(63).reshape(63, *SHAPE)).flatten(1).T.double()
    weight = y.precision[0].flatten().double()
    for i in range(2):
        prior = tau[i].flatten().double() ** -2
        left = matrix.T @ (weight[:, None] * matrix) + prior.diag()
        right = matrix.T @ (weight * y.data[i].flatten().double()) + prior * v[i].flatten().double()
        torch.testing.assert_close(x[i].flatten().double(), torch.linalg.solve(left, right), rtol=1e-3, atol=1e-3)


def complex_problem() -> tuple[LinearOperator, Measurement, torch.Tensor]:
    """Complex pixels, one of which was not measured, E|n|^2 = 1 / precision."""
    g = torch.Generator().manual_seed(0)
    A = Diagonal(torch.randn(*SHAPE, dtype=torch.complex64, generator=g))
    truth = torch.randn(2, *SHAPE, dtype=torch.complex64, generator=g)
    precision = 20 + 50 * torch.rand(1, *SHAPE, generator=g)
    precision[0, 3, 3] = 0
    return A, Measurement(A(truth) + 0.1, precision), truth


def real_problem() -> tuple[LinearOperator, Measurement, torch.Tensor]:
    """The real parts of it, cheap enough for thousands of draws."""
    A, y, truth = complex_problem()
    assert isinstance(A, Diagonal)
    real = Diagonal(A.diagonal.real.contiguous())
    return real, Measurement(real(truth.real.contiguous()) + 0.1, y.precision), truth.real.contiguous()


@pytest.mark.parametrize("make", [problem, complex_problem])
def test_gradient_and_score_are_derivatives_of_the_log_likelihood(make):
    """-log p is half the sum of squares over real numbers, of variance 1 / precision, half of it if complex."""
    A, y, truth = make()
    data, g = DataConsistency(A, y, iterations=200, tolerance=1e-7), torch.Generator().manual_seed(3)
    v = truth + 0.3 * torch.randn(truth.shape, dtype=truth.dtype, generator=g)
    parts = 2 if truth.is_complex() else 1
    leaf = v.clone().requires_grad_(True)
    (parts * y.precision * (A(leaf) - y.data).abs().square() / 2).sum().backward()
    torch.testing.assert_close(data.gradient(v), leaf.grad, rtol=1e-4, atol=1e-4)
    small = torch.full(SHAPE, 1e-3).expand(2, *SHAPE)
    torch.testing.assert_close(data.score(v, small), -leaf.grad, rtol=0.05, atol=0.5)
    eye = torch.eye(63, dtype=truth.dtype).reshape(63, *SHAPE)
    matrix, tau = A(eye).flatten(1).T, torch.rand(2, *SHAPE, generator=g) + 0.1
    seen = (y.precision > 0).flatten()
    for i in range(2):
        covariance = (matrix * tau[i].flatten().square()) @ matrix.mH + (1 / y.precision.flatten()).diag()
        residual = (y.data[i] - A(v[i])).flatten()
        solved = torch.linalg.solve(covariance[seen][:, seen], residual[seen])
        exact = parts * matrix[seen].mH @ solved
        assert float((data.score(v, tau)[i].flatten() - exact).norm() / exact.norm()) < 0.01


def test_draws_have_the_mean_and_covariance_of_the_posterior():
    for make, count in ((real_problem, 4000), (complex_problem, 4000)):
        A, y, truth = make()
        data = DataConsistency(A, y[0:1], iterations=100, tolerance=1e-5).repeated(count)
        tau = (0.1 + torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(4))).expand(count, *SHAPE)
        v = truth[:1].expand(count, *SHAPE)
        x = data.drawn(v, tau, Independent(torch.Generator().manual_seed(5), each=count))
        matrix = A(torch.eye(63, dtype=truth.dtype).reshape(63, *SHAPE)).flatten(1).T
        inverse = (matrix.mH * y.precision[0].flatten()) @ matrix + (tau[0].flatten() ** -2).diag()
        covariance = torch.linalg.inv(inverse)
        found = torch.cov(x.flatten(1).T)
        assert float((found - covariance).norm() / covariance.norm()) < 0.25  # chance: (63 / count)^(1/2)
        deviation = covariance.diag().real.sqrt()
        centre = data.prox(v, tau)[0].flatten()
        assert float(((x.mean(0).flatten() - centre).abs() / deviation).max()) < 4.5 * count**-0.5 + 0.01


def test_curvature_is_the_largest_eigenvalue_item_by_item():
    for make in (problem, complex_problem):
        A, y, truth = make()
        tau = 0.1 + torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(6))
        found = DataConsistency(A, y).curvature(tau)
        matrix = A(torch.eye(63, dtype=truth.dtype).reshape(63, *SHAPE)).flatten(1).T
        for i in range(2):
            scaled = y.precision[0].flatten().sqrt()[:, None] * matrix * tau[i].flatten()
            largest = float(torch.linalg.matrix_norm(scaled, 2) ** 2)
            assert 0.85 * largest < float(found[i]) < 1.1 * largest


def test_deviation_is_nothing_at_the_noise_and_capped_far_from_it():
    A, y, truth = problem()
    dc = DataConsistency(A, y)
    expected = 0.2 + torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    fitted = dc.prox(truth, torch.full_like(truth, 10.0))
    assert bool((y.chi2(A(fitted)) < 1).all())
    assert float(dc.deviation(A(fitted), expected).abs().max()) == 0
    torch.testing.assert_close(dc.deviation(A(truth + 100), expected), expected * SHARE**0.5)
    assert torch.equal(dc.prox(truth, torch.zeros_like(truth)), truth)


def test_polish_reaches_the_noise_and_leaves_what_is_there_alone():
    A, y, truth = problem()
    dc = DataConsistency(A, y, iterations=100)
    start = torch.stack([truth[0] + 0.5, dc.prox(truth, torch.full_like(truth, 10.0))[1]])
    x = dc.to_discrepancy(start, torch.full_like(truth, 1.0), rounds=12)
    chi2 = y.chi2(A(x))
    assert float(chi2[0]) == pytest.approx(1, abs=0.05)
    assert torch.equal(x[1], start[1])


def test_polish_goes_no_further_than_the_expected_error_where_the_model_errs():
    A, y, truth = problem()
    beyond = replace(y, data=y.data + 20 * torch.randn(y.data.shape, generator=torch.Generator().manual_seed(2)))
    dc, expected = DataConsistency(A, beyond, iterations=100), torch.full_like(truth, 0.02)
    x = dc.to_discrepancy(truth, expected)
    assert bool((beyond.chi2(A(x)) > 2).all())  # out of reach
    torch.testing.assert_close(x, dc.prox(truth, expected))


@pytest.mark.parametrize("values", [Asinh(), Linear(), Linear(-3.0, 5.0)])
def test_derivative_of_a_value_map(values: ValueMap):
    u = torch.linspace(-0.79, 1.1, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(values.inverse(u).sum(), u)
    torch.testing.assert_close(values.derivative(u.detach()), slope)


def test_spread_carries_an_error_of_the_network_to_the_image():
    """In units of 1/mm, for a map that is five times steeper in air than in soft tissue."""
    prior = example_prior(SHAPE).with_units(50_000.0, -1000.0)
    object.__setattr__(prior, "values", Asinh())
    x = torch.tensor([[[0.0, 0.0206]]])  # air, soft tissue
    u = prior.network_values(x)
    moved = (prior.values.inverse(u + 1e-3) - prior.intercept) / prior.slope
    torch.testing.assert_close(prior.spread(x), (moved - x) / 1e-3, rtol=0.01, atol=0)
    assert 4 < float(prior.spread(x)[0, 0, 0] / prior.spread(x)[0, 0, 1]) < 7


def test_expected_error_grows_with_the_noise_from_the_round_trip_error():
    A, y, truth = problem()
    prior = replace(example_prior(SHAPE), error=0.05)
    error = PixelError.around(LatentSpace(prior, A, y), prior.encode(truth), warm=False)
    torch.testing.assert_close(error(truth, 1e-6, None), torch.full_like(truth, prior.error))
    # The identity autoencoder: gain 1, a latent of unit variance keeps sigma / sqrt(1 + sigma^2).
    half = torch.full_like(truth, 0.5)
    torch.testing.assert_close(error(truth, 1.0, None).square() - prior.error**2, half, rtol=1e-3, atol=0)


def test_after_a_warm_start_the_error_is_expected_where_the_estimate_has_left_it():
    A, y, truth = problem()
    space = LatentSpace(prior := replace(example_prior(SHAPE), error=0.05), A, y)
    anywhere, there = (PixelError.around(space, prior.encode(truth), warm=warm) for warm in (False, True))
    torch.testing.assert_close(there(truth, 1.0, None), anywhere(truth, 1.0, None))  # they agree: no place is known
    moved = truth.clone()
    moved[:, 2:5, 3:6] += 1.0
    error = there(moved, 1.0, None)
    torch.testing.assert_close(mean_square(error), mean_square(anywhere(moved, 1.0, None)))  # the size is the same
    assert bool((error[:, 3, 4] > 1.7 * error[:, 0, 8]).all())
    assert float(error.min()) > 0


def test_the_error_is_expected_where_the_denoiser_is_unsure():
    A, y, truth = problem()
    space = LatentSpace(prior := replace(example_prior(SHAPE), error=0.05), A, y)
    doubt = torch.zeros_like(truth)
    doubt[:, :, :3] = 0.7
    for warm in (False, True):
        error = PixelError.around(space, prior.encode(truth), warm=warm)
        unsure, level = error(truth, 1.0, doubt), error(truth, 1.0, None)
        torch.testing.assert_close(mean_square(unsure), mean_square(level))  # the size is the same
        assert bool((unsure[:, :, :3] > 1.3 * unsure[:, :, 3:].amax()).all()) and float(unsure.min()) > 0
        blank = error(truth, 1.0, torch.zeros_like(truth))  # unsure nowhere: no place is known
        torch.testing.assert_close(blank, level)


def mean_square(error: torch.Tensor) -> torch.Tensor:
    return error.square().mean((1, 2))


@dataclass(frozen=True)
class Halves(Denoiser):
    """The exact denoiser of independent latents of variance 1 in the left half and 1/15 in the right one."""

    sigma_min: float = 0.01
    sigma_max: float = 100.0

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance = torch.where(torch.arange(z.shape[-1]) < z.shape[-1] // 2, 1.0, 1 / 15)
        return z * variance / (variance + sigma.view(-1, 1, 1, 1).square())


@pytest.mark.parametrize("factor", [1, 4])
def test_where_the_denoiser_is_unsure_is_read_off_two_latents_of_opposite_noise(factor: int):
    """J = v / (v + sigma^2) of every place, whatever the signal; in a mirror on the other side."""
    shape = (30, 44)  # no multiple of 4: what is padded is cut off again
    prior = Prior(PixelSpace(factor), Halves(), Linear(-1.0, 1.0), "a.u.", "CT", error=0.0)
    A = Diagonal(torch.ones(shape))
    y = Measurement(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, 1))
    space = LatentSpace(prior, A, y).repeated(4, torch.tensor([False, True, False, True]))
    signal = space.encode(y.data.repeat(4, 1, 1))
    noise = torch.randn((4, *signal.shape[1:]), generator=torch.Generator().manual_seed(1))
    z = signal + 0.5 * torch.cat([noise, -noise])
    every = posterior_variance(space, z, space.denoise(z, 0.5))
    assert every.shape == (8, *shape)
    for trajectory, variance in enumerate(every.unflatten(0, (4, 2))):
        doubt = variance.flip(-1) if trajectory % 2 else variance
        torch.testing.assert_close(doubt[..., :16], torch.full((2, 30, 16), 0.8), rtol=1e-3, atol=0)
        torch.testing.assert_close(doubt[..., 28:], torch.full((2, 30, 16), 4 / 19), rtol=1e-3, atol=0)


class Overlaid(LinearOperator):
    """The left half of an image over its right half."""

    def __init__(self, height: int, width: int) -> None:
        self.in_shape, self.out_shape = (height, width), (height, width // 2)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return left + right

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([y, y], -1)

    @classmethod
    def examples(cls):
        yield cls(6, 8)


def test_the_data_decide_where_the_denoiser_is_unsure():
    """One step from noise: what is seen in sum of two halves goes to them as the denoiser's variances 0.8 and 4/19 (of
    which 2 % lie everywhere), not in equal shares, as it does to a single trajectory."""
    prior = Prior(PixelSpace(1), Halves(sigma_max=0.5), Linear(-1.0, 1.0), "a.u.", "CT", error=0.0)
    A, g = Overlaid(16, 24), torch.Generator().manual_seed(0)
    y = Measurement(10 + torch.randn(2, 16, 12, generator=g), torch.full((1, 1, 1), 100.0))
    shares = []
    for antithetic in (True, False):
        solver = ReSample(prior, start=0.5, steps=1, pairs=1, polish=False, antithetic=antithetic)
        x = solver(A, y, generator=torch.Generator().manual_seed(1)).image
        noise = 0.5 * torch.randn((1, 16, 24), generator=torch.Generator().manual_seed(1))
        alone = prior.denoiser(noise[None], torch.tensor([0.5]))[0]  # its D; those of a pair cancel
        left, right = (half[..., 2:10] for half in (x - (0 if antithetic else alone)).chunk(2, -1))  # no blurred seam
        shares.append((left.sum((1, 2)) / right.sum((1, 2))).tolist())
    everywhere = 0.02 * (0.8 + 4 / 19) / 2
    assert shares[0] == pytest.approx([(0.8 + everywhere) / (4 / 19 + everywhere)] * 2, rel=0.01)
    assert shares[1] == pytest.approx([1.0, 1.0], rel=1e-3)


def test_an_annealed_weight_is_that_of_less_precise_data() -> None:
    A, y, truth = problem()
    exact = {"iterations": 300, "tolerance": 1e-7}
    data, less = DataConsistency(A, y, **exact), DataConsistency(A, Measurement(y.data, 0.3 * y.precision), **exact)
    v, expected = truth + 0.3, torch.full((2, *SHAPE), 0.4)
    tau = data.deviation(A(v), expected)
    x = data.prox(v, data.deviation(A(v), expected, 0.3))
    torch.testing.assert_close(x, less.prox(v, tau), rtol=1e-3, atol=1e-3)
    assert float((x - data.prox(v, tau)).abs().max()) > 1e-2


@pytest.mark.parametrize("make", [DDS, ReSample, DiffusionMBIR])
def test_annealing_takes_the_data_their_weight_at_one_end(make: type[DDS]) -> None:
    """A power above 0 at the last levels, one below 0 at the first; 0 never, which is the default."""
    levels = [0.8, 0.4, 0.2, 0.0]
    for power, shares in ((0.0, [1, 1, 1]), (2.0, [1, 0.25, 0.0625]), (-2.0, [0.0625, 0.25, 1])):
        assert [Anneal.over(power, levels)(s) for s in levels[:3]] == pytest.approx(shares)
    assert Anneal.over(2.0, levels)(0.9) == Anneal.over(-2.0, levels)(0.1) == 1
    prior, g = example_prior(SHAPE), torch.Generator()
    A = Diagonal(torch.ones(SHAPE))
    y = Measurement(torch.tensor([3.0, 6.0])[:, None, None].repeat(1, *SHAPE), torch.full((1, *SHAPE), 400.0))

    def chi2(power: float) -> list[float]:
        solver = make(prior, steps=5, start=0.8, end=0.2, anneal=power)
        return solver(A, y, generator=g.manual_seed(0), warm=y.data / 2).residuals

    own, falling, rising = chi2(0.0), chi2(4.0), chi2(-4.0)
    assert make(prior).anneal == 0
    assert falling[0] == pytest.approx(own[0]) and falling[-1] > 1.2 * own[-1]
    assert rising[0] > 1.2 * own[0] and rising[-1] < rising[0] / 3
