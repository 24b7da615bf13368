"""TV: pieces, closed form, an independent solver, its own optimality, complex images."""

import numpy as np
import pytest
import torch

from medrecon.core.measurement import Measurement
from medrecon.numerics.differences import gradient, gradient_adjoint, total_variation
from medrecon.numerics.linalg import dot
from medrecon.operators.algebra import Diagonal
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Solution
from medrecon.solvers.variational.tv import TV


def solve(A: LinearOperator, y: Measurement, **settings: float) -> Solution:
    return TV(**settings)(A, y, generator=torch.Generator())  # type: ignore[arg-type]


def identity(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> LinearOperator:
    return Diagonal(torch.ones(shape, dtype=dtype))


def _noisy(seed: int = 0) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 24)] * 2, indexing="ij")
    clean = 1.0 + (x**2 + y**2 < 0.5) + 2.0 * ((x > 0.3) & (y > 0))
    return clean + 0.2 * torch.randn(24, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_gradient_adjoint(dtype: torch.dtype, generator: torch.Generator) -> None:
    x = torch.randn(2, 7, 5, dtype=dtype, generator=generator)
    v = torch.randn(2, 2, 7, 5, dtype=dtype, generator=generator)
    left = dot(gradient(x, 2), v, 2).sum(0)
    assert torch.allclose(left, dot(x, gradient_adjoint(v, 2), 2), atol=1e-4)


def test_total_variation_of_a_square_is_its_perimeter() -> None:
    x = torch.zeros(1, 20, 20)
    x[0, 5:10, 5:12] = 3.0
    # One corner has both differences in the same pixel: sqrt(2) instead of 2.
    assert float(total_variation(x, 2)) == pytest.approx(3 * (2 * (5 + 7) - 2 + 2**0.5), rel=1e-5)


def test_two_levels_closed_form() -> None:
    """Left half a, right half b: every side moves towards the other by lambda / (precision * half width)."""
    x = torch.full((1, 8, 12), 1.0)
    x[..., 6:] = 3.0
    precision = 4.0
    solution = solve(
        identity((8, 12)),
        Measurement(x, torch.full((1, 8, 12), precision)),
        strength=0.3,
        tolerance=1e-6,
        iterations=3000,
    )
    shift = float(solution.diagnostics["weight"]) / (precision * 6)
    assert solution.converged
    assert 0.01 < shift < 0.5
    assert torch.allclose(solution.image[..., :6], torch.tensor(1 + shift), atol=2e-3)
    assert torch.allclose(solution.image[..., 6:], torch.tensor(3 - shift), atol=2e-3)


def test_denoising_equals_scikit_image() -> None:
    restoration = pytest.importorskip("skimage.restoration")
    data = _noisy()
    solution = solve(
        identity((24, 24)),
        Measurement(data[None], torch.full((1, 24, 24), 25.0)),
        strength=0.3,
        tolerance=1e-6,
        iterations=3000,
    )
    weight = float(solution.diagnostics["weight"]) / 25.0
    reference = restoration.denoise_tv_chambolle(data.double().numpy(), weight=weight, eps=1e-9, max_num_iter=5000)
    error = np.linalg.norm(solution.image[0].numpy() - reference) / np.linalg.norm(reference - data.numpy())
    assert error < 0.02
    # The test has teeth: a weight off by a tenth is seen.
    other = restoration.denoise_tv_chambolle(data.double().numpy(), weight=1.1 * weight, eps=1e-9, max_num_iter=5000)
    assert np.linalg.norm(solution.image[0].numpy() - other) / np.linalg.norm(reference - data.numpy()) > 0.02


def test_default_settings_denoise() -> None:
    clean_ish = torch.stack([_noisy(k) for k in range(40)]).mean(0)
    solution = solve(identity((24, 24)), Measurement(_noisy(99)[None], torch.full((1, 24, 24), 25.0)))
    assert float((solution.image[0] - clean_ish).norm()) < 0.9 * float((_noisy(99) - clean_ish).norm())


def test_no_neighbour_is_better(generator: torch.Generator) -> None:
    """The image minimises chi^2/2 + strength * pixels * log(TV + floor), what the self-chosen weight stands for."""
    A = Diagonal(torch.rand(16, 16, generator=generator) + 0.5)
    y = Measurement(A(_noisy()[:16, :16])[None], torch.full((1, 16, 16), 25.0))
    solution = solve(A, y, strength=0.2, tolerance=1e-6, iterations=4000)
    x = solution.image
    floor = float(0.2 * 256 / solution.diagnostics["weight"] - total_variation(x, 2))
    assert floor > 0

    def objective(image: torch.Tensor) -> float:
        d = image.double()
        fit = 12.5 * (A.diagonal * d - y.data).square().sum()
        return float(fit + 0.2 * 256 * (total_variation(d, 2) + floor).log())

    best = objective(x)
    for scale in (1e-2, 1e-1):
        for _ in range(20):
            other = (x + scale * torch.randn(x.shape, generator=generator)).clamp_min(0)
            assert objective(other) > best
        assert objective(x * (1 + scale)) > best
        assert objective(x * (1 - scale)) > best


def test_complex_image_with_one_phase_is_the_real_one_turned() -> None:
    """Real and complex problems with the same chi^2 agree; the phase of the whole image does not matter."""
    y = Measurement(_noisy()[None], torch.full((1, 24, 24), 25.0))
    real = solve(identity((24, 24)), y, tolerance=1e-5, iterations=2000).image
    turn = torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    turned = solve(
        identity((24, 24), torch.complex64), Measurement(y.data * turn, y.precision), tolerance=1e-5, iterations=2000
    ).image
    assert float((turned / turn - real).abs().max()) < 2e-3


def test_real_images_stay_positive_and_complex_ones_are_free() -> None:
    data = _noisy()[None] - 1.5
    y = Measurement(data, torch.full((1, 24, 24), 25.0))
    assert float(solve(identity((24, 24)), y).image.min()) >= 0
    free = solve(identity((24, 24), torch.complex64), Measurement(data + 0j, y.precision))
    assert float(free.image.real.min()) < -0.2


def test_nothing_measured_gives_zero_and_bad_settings_are_refused() -> None:
    nothing = Measurement(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))
    assert float(solve(identity((8, 8)), nothing).image.abs().max()) == 0
    for settings in ({"strength": 0.0}, {"relaxation": 2.0}, {"iterations": 0}):
        with pytest.raises(ValueError, match="strength > 0"):
            TV(**settings)  # type: ignore[arg-type]
