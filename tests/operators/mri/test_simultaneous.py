"""SimultaneousMultiSlice: the sum written out, shifts, and unaliasing with and without CAIPIRINHA."""

import math

import pytest
import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.numerics.linalg import cg
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.simultaneous import SimultaneousMultiSlice, caipirinha
from medrecon.sampling.lines import random_mask

pytestmark = pytest.mark.usefixtures("one_thread")


def head_coil(slices: int, size: int, coils: int = 8, gap: float = 0.25) -> Tensor:
    """Maps (S, C, N, N) of coils on one ring around a stack of slices `gap` apart (in half fields of view): 1 / r^2 in
    three dimensions, so that neighbouring slices see almost the same sensitivities, as in a head coil."""
    angle = 2 * math.pi * torch.arange(coils, dtype=torch.float64).view(-1, 1, 1) / coils
    axis = (torch.arange(size, dtype=torch.float64) - size // 2) / (size / 2)
    out = []
    for s in range(slices):
        z = gap * s + 0.1 * torch.cos(3 * angle)
        dy, dx = axis[:, None] - 1.5 * angle.sin(), axis - 1.5 * angle.cos()
        out.append(torch.polar(1 / (dx.square() + dy.square() + z.square()), torch.atan2(dy, dx)))
    return torch.stack(out)


def phantoms(slices: int, size: int) -> Tensor:
    """A disc with inserts that differ from slice to slice, complex128 (S, N, N)."""
    axis = (torch.arange(size, dtype=torch.float64) - size // 2) / (size / 2)
    y, x = axis[:, None], axis
    out = []
    for s in range(slices):
        image = 1.0 * ((x / 0.6).square() + (y / 0.8).square() < 1)
        turn = 2.1 * s + 0.4
        for k, value in ((0.0, 0.8), (2.5, -0.6)):
            dx, dy = x - 0.3 * math.cos(turn + k), y - 0.4 * math.sin(turn + k)
            image = image + value * (dx.square() + dy.square() < 0.03)
        out.append(image)
    return torch.stack(out).to(torch.complex128)


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def test_it_is_the_sum_of_the_shifted_slices() -> None:
    maps, x = head_coil(3, 12), phantoms(3, 12)
    A = SimultaneousMultiSlice.cartesian(maps, torch.ones(12, 12))
    full = CartesianMRI(torch.ones(1, 12, 12, dtype=torch.complex128), torch.ones(12, 12))
    together = sum((maps[s] * x[s]).roll(4 * s, -1) for s in range(3))  # 1/3 of 12 columns a slice
    assert relative(full.adjoint(A(x)[:, None]), together) < 1e-12
    plain = SimultaneousMultiSlice([CartesianMRI(m, torch.ones(12, 12)) for m in maps])
    assert relative(full.adjoint(plain(x)[:, None]), (maps * x[:, None]).sum(0)) < 1e-12
    one = SimultaneousMultiSlice.cartesian(maps[:1], torch.ones(12, 12))
    assert relative(one(x[:1]), CartesianMRI(maps[0], torch.ones(12, 12))(x[0])) < 1e-12


def test_the_phase_goes_with_the_line_and_is_one_at_zero_frequency() -> None:
    for columns in (12, 13):
        phases = caipirinha(3, columns)
        assert torch.allclose(phases[:, columns // 2], torch.ones(3, dtype=torch.complex128))
        assert torch.allclose(phases[1], phases[2].conj())  # thirds of a turn
        assert torch.allclose(phases[1, 3:], phases[1, :-3])
    half = caipirinha(2, 8).real
    assert torch.allclose(half[1], torch.tensor([1.0, -1.0]).double().repeat(4))


@pytest.mark.parametrize("bands", [2, 3])
def test_cg_unaliases_the_bands_and_the_shift_conditions_them(bands: int) -> None:
    size = 18
    maps, truth = head_coil(bands, size), phantoms(bands, size)
    g = torch.Generator().manual_seed(5)
    clean_errors, noisy_errors, conditions = [], [], []
    for shift in (1 / bands, 0.0):
        A = SimultaneousMultiSlice.cartesian(maps, torch.ones(size, size), shift)
        clean = A(truth)
        noise = 2e-3 * clean.abs().square().mean().sqrt()
        noisy = clean + noise * torch.randn(clean.shape, dtype=clean.dtype, generator=g)
        images = cg(A.gram, A.adjoint(torch.stack([clean, noisy])), ndim=3, iterations=500, tolerance=1e-10).x
        clean_errors.append(relative(images[0], truth))
        noisy_errors.append(relative(images[1], truth))
        conditions.append(_condition(maps, shift))
    assert clean_errors[0] < 1e-7 and clean_errors[1] > 1e-3 and noisy_errors[0] < 0.01
    assert noisy_errors[1] > 10 * noisy_errors[0] and conditions[1] > 10 * conditions[0]


def _condition(maps: Tensor, shift: float) -> float:
    """Largest over smallest singular value of the unmixing, pixel by pixel: every pixel of the aliased image is the sum
    of one of each slice."""
    moved = torch.stack([m.roll(round(s * shift * m.shape[-1]), -1) for s, m in enumerate(maps)])
    values = torch.linalg.svdvals(moved.permute(2, 3, 1, 0))
    return float(values.max() / values.min())


def test_the_pixelwise_condition_is_that_of_the_operator() -> None:
    maps = head_coil(2, 6)
    for shift in (None, 0.0):
        A = SimultaneousMultiSlice.cartesian(maps, torch.ones(6, 6), shift)
        basis = torch.eye(72, dtype=torch.complex128).reshape(72, 2, 6, 6)
        values = torch.linalg.svdvals(A(basis).reshape(72, -1))
        assert float(values[0] / values[-1]) == pytest.approx(_condition(maps, 0.0 if shift == 0.0 else 0.5), rel=1e-9)


def test_with_lines_skipped_in_the_plane_too() -> None:
    """Two slices, every other line: four pixels to unmix; the shift of a quarter keeps them apart."""
    maps, truth = head_coil(2, 20, gap=0.5), phantoms(2, 20)
    mask = torch.zeros(20, 20)
    mask[:, ::2] = 1
    A = SimultaneousMultiSlice.cartesian(maps, mask, shift=0.25)
    image = cg(A.gram, A.adjoint(A(truth)), ndim=3, iterations=800, tolerance=1e-11).x
    assert relative(image, truth) < 1e-5


def test_refusals() -> None:
    g = torch.Generator().manual_seed(0)
    slices = [CartesianMRI(birdcage_maps(2, (6, 5), g), random_mask((6, 5), 2, 2, g)) for _ in range(2)]
    with pytest.raises(ValueError, match="at least one"):
        SimultaneousMultiSlice([])
    other = CartesianMRI(birdcage_maps(3, (6, 5), g), torch.ones(6, 5))
    with pytest.raises(ValueError, match="slice 1 is"):
        SimultaneousMultiSlice([slices[0], other])
    for phases in (caipirinha(3, 5), caipirinha(2, 6), caipirinha(2, 5) * math.nan):
        with pytest.raises(ValueError, match="phases"):
            SimultaneousMultiSlice(slices, phases)
    with pytest.raises(ValueError, match=r"\(S, C, H, W\)"):
        SimultaneousMultiSlice.cartesian(torch.ones(2, 6, 5, dtype=torch.complex64), torch.ones(6, 5))
    with pytest.raises(ValueError, match="caipirinha"):
        caipirinha(0, 5)
