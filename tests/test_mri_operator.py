"""CartesianMRI: the laws, equality with SigPy, closed forms, orientation, errors."""

import math

import pytest
import torch

from medrecon.operators.base import LinearOperator
from medrecon.operators.check import adjoint_error, check_operator
from medrecon.operators.coils import birdcage_maps
from medrecon.operators.masks import random_mask
from medrecon.operators.mri import CartesianMRI


def _randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize("A", list(CartesianMRI.examples()), ids=str)
def test_laws(A: LinearOperator) -> None:
    check_operator(A)


@pytest.mark.parametrize("shape", [(32, 24), (31, 25), (16, 27)])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_sigpy_sense(shape: tuple[int, int], coils: int, weighted: bool, generator: torch.Generator) -> None:
    import sigpy.mri

    maps, mask = birdcage_maps(coils, shape, generator), random_mask(shape, 3, 6, generator)
    weights = mask * (1 + torch.rand(shape, generator=generator)) if weighted else mask
    A = CartesianMRI(maps, weights)
    # SigPy multiplies by the square root of its weights.
    reference = sigpy.mri.linop.Sense(maps.numpy(), weights=weights.float().square().numpy())
    x, y = _randn(*shape), _randn(coils, *shape, seed=1)
    assert _relative(A(x), torch.from_numpy(reference * x.numpy())) < 1e-6
    assert _relative(A.adjoint(y), torch.from_numpy(reference.H * y.numpy())) < 1e-6
    assert _relative(A.gram(x), torch.from_numpy(reference.N * x.numpy())) < 1e-6
    assert float(A(x)[:, ~mask].abs().max()) == 0


def test_complex128_is_exact_to_its_precision(generator: torch.Generator) -> None:
    A = CartesianMRI(birdcage_maps(3, (9, 11), generator).to(torch.complex128), random_mask((9, 11), 2, 3, generator))
    x, y = _randn(2, 9, 11, dtype=torch.complex128), _randn(2, 3, 9, 11, dtype=torch.complex128)
    left, right = (A(x).conj() * y).sum(), (x.conj() * A.adjoint(y)).sum()
    assert abs(left - right) < 1e-12 * abs(left)
    assert adjoint_error(A) < 1e-6


def test_maps_and_masks_of_each_item_act_on_that_item_alone(generator: torch.Generator) -> None:
    maps = torch.stack([birdcage_maps(3, (7, 10), generator) for _ in range(2)])
    masks = torch.stack([random_mask((7, 10), 2, 2, generator) for _ in range(2)])
    x = _randn(2, 7, 10)
    y = CartesianMRI(maps, masks)(x)
    for i in range(2):
        assert _relative(y[i], CartesianMRI(maps[i], masks[i])(x[i])) < 1e-6
    with pytest.raises(ValueError, match=r"2 sets of maps.*3 items"):
        CartesianMRI(maps, masks)(_randn(3, 7, 10))


@pytest.mark.parametrize("size", [32, 33])
def test_fourier_transform_of_a_shifted_gaussian(size: int) -> None:
    """Analytic: centre, half pixel and sign of the exponent, for even and odd sizes."""
    position = torch.arange(size, dtype=torch.float64) - size // 2
    width, shift = 2.0, torch.tensor([3.0, -2.0], dtype=torch.float64)
    profile = [torch.exp(-((position - s) ** 2) / (2 * width**2)) for s in shift]
    image = profile[0][:, None] * profile[1]
    frequency = position / size
    lines = [
        width * math.sqrt(2 * math.pi / size)
        * torch.exp(-2 * (math.pi * width * frequency) ** 2) * torch.exp(-2j * math.pi * frequency * s) for s in shift
    ]  # fmt: skip
    expected = lines[0][:, None] * lines[1]
    A = CartesianMRI(torch.ones(1, size, size, dtype=torch.complex128), torch.ones(size, size))
    assert _relative(A(image.to(torch.complex128))[0], expected) < 1e-6


@pytest.mark.parametrize("weight", [0.3, torch.tensor([0.1, 2.0])])
def test_prox_of_one_coil_is_the_cg_solution(weight: float | torch.Tensor, generator: torch.Generator) -> None:
    A = CartesianMRI(birdcage_maps(1, (12, 9), generator), random_mask((12, 9), 2, 3, generator))
    z, y = _randn(2, 12, 9), A(_randn(2, 12, 9, seed=5))
    exact = A.prox(z, y, weight)
    iterated = LinearOperator.prox(A, z, y, weight, iterations=60, tolerance=1e-7)
    assert _relative(exact, iterated) < 1e-5
    mu = torch.as_tensor(weight).reshape(-1, 1, 1)
    assert float((A.adjoint(A(exact) - y) + mu * (exact - z)).abs().max()) < 1e-5


def test_prox_of_many_coils_solves_the_normal_equations(generator: torch.Generator) -> None:
    A = CartesianMRI(birdcage_maps(4, (12, 9), generator), random_mask((12, 9), 2, 3, generator))
    z, y = _randn(12, 9), _randn(4, 12, 9)
    x = A.prox(z, y, 0.5, iterations=60, tolerance=1e-7)
    assert float((A.adjoint(A(x) - y) + 0.5 * (x - z)).abs().max()) < 1e-5


def test_norm_is_one_for_normalised_maps(generator: torch.Generator) -> None:
    A = CartesianMRI(birdcage_maps(1, (12, 9), generator), random_mask((12, 9), 2, 3, generator))
    assert abs(A.norm() - 1) < 1e-3


def test_refuses_what_does_not_fit(generator: torch.Generator) -> None:
    maps, mask = birdcage_maps(2, (8, 6), generator), torch.ones(8, 6)
    broken = maps.clone()
    broken[0, 0, 0] = complex("nan")
    cases = [
        (maps, mask * 0, "no sample"), (maps, torch.ones(8, 7), "mask must be real"), (broken, mask, "NaN"),
        (maps.real, mask, "maps are complex"), (maps[0], mask, "maps are complex"),
        (maps.expand(2, -1, -1, -1), mask.expand(3, -1, -1), "2 sets of maps but 3 masks"),
        (maps, mask * float("nan"), "mask has NaN"),
    ]  # fmt: skip
    for m, k, message in cases:
        with pytest.raises(ValueError, match=message):
            CartesianMRI(m, k)
    with pytest.raises(TypeError, match="complex"):
        CartesianMRI(maps, mask)(torch.zeros(8, 6))
