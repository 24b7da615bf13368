"""Conjugate gradients and power iterations against the eigenvalues they are about."""

import pytest
import torch

from medrecon.numerics.dominant import dominant_eigenvector
from medrecon.numerics.linalg import cg, dot, power_norm, power_norms


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def test_dot_is_the_real_part_of_the_inner_product() -> None:
    a, b = random(3, 4, 5), random(3, 4, 5, seed=1)
    torch.testing.assert_close(dot(a, b, 2), (a.conj() * b).sum((1, 2)).real)
    torch.testing.assert_close(dot(a, b, 1), (a.conj() * b).sum(2).real)
    torch.testing.assert_close(dot(a.real, b, 2), (a.real * b.real).sum((1, 2)))


def test_cg_ends_after_as_many_steps_as_there_are_eigenvalues() -> None:
    """Items with 2 and 3 different eigenvalues; each is left alone when it is done, and a start is made use of."""
    values = torch.tensor([[1.0, 1, 5, 5, 5], [1, 3, 3, 9, 9]], dtype=torch.float64)
    truth = random(2, 5)

    def gram(x: torch.Tensor) -> torch.Tensor:
        return values * x

    found = cg(gram, gram(truth), ndim=1, tolerance=1e-10)
    assert found.iterations == 3 and bool((found.residual < 1e-10).all())
    torch.testing.assert_close(found.x, truth)
    assert cg(gram, gram(truth), ndim=1, iterations=2, tolerance=1e-10).residual[1] > 1e-3
    assert cg(gram, gram(truth), ndim=1, x0=truth).iterations == 0


def test_power_iterations_find_the_largest_singular_value() -> None:
    """diag(9, 4, 1) is the Gram of singular values up to 3; for steps 3 % more is promised."""
    values = torch.tensor([9.0, 4.0, 1.0], dtype=torch.float64)
    scale = torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    start = random(2, 3)
    assert power_norm(lambda x: values * x, start[0]) == pytest.approx(3, rel=1e-6)
    assert power_norm(lambda x: 0 * x, start[0]) == 0
    found = power_norms(lambda x: scale * values * x, start, 1, iterations=40)
    torch.testing.assert_close(found, 1.03 * torch.tensor([3.0, 30.0], dtype=torch.float64))


def test_dominant_eigenvector_is_that_of_eigh() -> None:
    """Also where the second eigenvalue is 95 % of the first, and in the company of matrices that are done sooner."""
    q, _ = torch.linalg.qr(random(40, 6, 6))
    second = torch.linspace(0.0, 0.95, 40, dtype=torch.float64)[:, None]
    values = torch.cat([torch.ones(40, 1).double(), second * torch.tensor([[1.0, 0.9, 0.5, 0.2, 0.0]])], 1)
    size = torch.logspace(-3, 3, 40, dtype=torch.float64)
    matrices = size[:, None, None] * (q * values[:, None]) @ q.mH
    vectors, largest = dominant_eigenvector(matrices)
    torch.testing.assert_close(largest, size, rtol=1e-6, atol=0)
    overlap = (vectors.conj() * q[:, :, 0]).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=0, atol=1e-6)
    none, zero = dominant_eigenvector(torch.zeros(2, 3, 3, dtype=torch.complex64))
    assert not bool(none.any()) and not bool(zero.any())
