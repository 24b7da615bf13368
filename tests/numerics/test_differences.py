"""Finite differences on ramps, their adjoint, and total variation of what has a known one."""

import pytest
import torch

from medrecon.numerics.differences import gradient, gradient_adjoint, magnitude, total_variation


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_ramp_has_its_slopes_and_nothing_behind_the_border(ndim: int) -> None:
    shape = (4, 5, 6)
    slopes = torch.tensor([2.0, -3.0, 0.5], dtype=torch.float64)[3 - ndim :]
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape[3 - ndim :]), indexing="ij")
    x = sum(s * a for s, a in zip(slopes, axes, strict=True)) + torch.zeros(2, *shape, dtype=torch.float64)
    found = gradient(x, ndim)
    assert found.shape == (ndim, 2, *shape)
    for part, axis, slope in zip(found, range(-ndim, 0), slopes, strict=True):
        inner, border = part.split([shape[axis] - 1, 1], axis)
        torch.testing.assert_close(inner, torch.full_like(inner, float(slope)))
        assert not bool(border.any())


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_adjoint(ndim: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 5, 6, dtype=torch.complex128, generator=generator)
    v = torch.randn(ndim, 2, 4, 5, 6, dtype=torch.complex128, generator=generator)
    torch.testing.assert_close((gradient(x, ndim) * v.conj()).sum(), (x * gradient_adjoint(v, ndim).conj()).sum())


def test_total_variation_of_a_box_is_its_edge() -> None:
    """Height 3 times the edge; a corner counts once, by its diagonal; the phase of a complex image does not matter."""
    x = torch.zeros(2, 12, 14, dtype=torch.float64)
    x[0, 3:8, 4:10] = 3
    edge = 2 * (5 + 6) - 2 + 2**0.5
    torch.testing.assert_close(total_variation(x, 2), torch.tensor([3 * edge, 0], dtype=torch.float64))
    torch.testing.assert_close(
        total_variation(x * torch.polar(torch.ones(()), torch.tensor(0.7)), 2)[0].item(), 3 * edge
    )
    v = torch.tensor([[3 + 4j], [12j]], dtype=torch.complex128)
    assert float(magnitude(v)) == 13
