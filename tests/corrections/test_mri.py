"""Readout oversampling, EPI ghosts, ramp sampling: laws, closed forms, and that a wrong correction fails."""

import math

import pytest
import torch
from torch import Tensor

from medrecon.corrections.epi_ghost import correct_ghost, ghost_phase
from medrecon.corrections.ramp_sampling import Trapezoid, regridding
from medrecon.corrections.readout_oversampling import remove_readout_oversampling

pytestmark = pytest.mark.usefixtures("one_thread")


def fft(x: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x, -1), norm="ortho"), -1)


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def error(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize(("full", "kept"), [(64, 32), (65, 33), (66, 33), (64, 31), (63, 40), (7, 7)])
def test_oversampling_keeps_the_middle_pixels(full: int, kept: int) -> None:
    image = torch.zeros(2, full, dtype=torch.complex128)
    middle = noise((2, kept))
    start = full // 2 - kept // 2
    image[:, start : start + kept] = middle
    assert error(remove_readout_oversampling(fft(image), kept, -1), fft(middle)) < 1e-12
    assert error(remove_readout_oversampling(fft(image).mT, kept).mT, fft(middle)) < 1e-12


def test_oversampling_by_two_is_every_other_sample() -> None:
    image = torch.zeros(64, dtype=torch.complex128)
    image[16:48] = noise((32,))
    y = fft(image)
    assert error(remove_readout_oversampling(y, 32, -1), math.sqrt(2) * y[::2]) < 1e-12


def test_oversampling_leaves_white_noise_as_it_is() -> None:
    covariance = torch.tensor([[2.0, 0.5 - 0.3j], [0.5 + 0.3j, 1.0]], dtype=torch.complex128)
    n = torch.einsum("ij,jls->ils", torch.linalg.cholesky(covariance), noise((2, 500, 96)))
    kept = remove_readout_oversampling(n, 48, -1).flatten(1)
    assert error(kept @ kept.mH / kept.shape[1], covariance) < 0.02
    neighbours = (kept[0, 1:] * kept[0, :-1].conj()).mean().abs()
    assert float(neighbours) < 0.05  # still white


def test_oversampling_refuses() -> None:
    with pytest.raises(ValueError, match="at least 9 >= 1 samples"):
        remove_readout_oversampling(torch.zeros(4, 8, dtype=torch.complex64), 9)
    with pytest.raises(ValueError, match="complex"):
        remove_readout_oversampling(torch.zeros(4, 8), 4, -1)


def navigators(offset: float, slope: float, drift: float = 0.0) -> tuple[Tensor, Tensor]:
    """(1, C, n) forward, (2, C, n) backward around it, of one object seen by two coils."""
    x = torch.arange(96, dtype=torch.float64) - 48
    profile = torch.exp(-((x - 9) ** 2) / 400) * torch.polar(torch.ones_like(x), 0.02 * x)
    coils = torch.stack([profile * (1 + x / 100), 1j * profile * (1 - x / 120)])
    turn = torch.polar(torch.ones_like(x), offset + slope * x)
    early, late = (torch.polar(torch.tensor(1.0).double(), torch.tensor(s * drift).double()) for s in (-1, 1))
    return fft(coils)[None], fft(torch.stack([coils * turn * early, coils * turn * late]))


@pytest.mark.parametrize(("offset", "slope"), [(0.4, 0.03), (-2.9, -0.3), (0.0, 1.2)])
def test_the_phase_of_a_ghost_is_found_and_taken_out(offset: float, slope: float) -> None:
    forward, backward = navigators(offset, slope, drift=0.2)  # the drift of a centre frequency that is off cancels
    found = ghost_phase(forward, backward)
    assert math.remainder(found[0] - offset, 2 * math.pi) == pytest.approx(0, abs=1e-3)
    assert found[1] == pytest.approx(slope, abs=1e-4)
    one, other = (correct_ghost(lines, back, found)[0] for lines, back in ((forward, False), (backward, True)))
    shift = torch.polar(torch.tensor(1.0).double(), torch.tensor(0.2).double())
    assert error(other * shift, one) < 5e-3
    wrong = correct_ghost(backward, False, found)[0] * shift  # negative control
    assert error(wrong, correct_ghost(forward, True, found)[0]) > 0.2


def test_navigators_of_one_direction_are_refused() -> None:
    forward, backward = navigators(0.1, 0.1)
    with pytest.raises(ValueError, match="both directions"):
        ghost_phase(forward, backward[:0])
    with pytest.raises(ValueError, match="no signal"):
        ghost_phase(torch.zeros_like(forward), backward)


GRADIENT = Trapezoid(160, 240, 160, 32, 496)
"""Of a real EPI: 160 samples, 80 pixels."""


def test_moments_of_the_gradient() -> None:
    k = GRADIENT.frequencies(160, 160)
    area = 240 + 160 - 32**2 / 160
    assert torch.allclose(k, -k.flip(0)) and float(k.diff().max()) == pytest.approx(3.1 / area * 160)
    first = (32 * 1.55 + 1.55**2 / 2) / 160 * 160 / area  # the gradient rises by t / 160
    assert float(k[0]) == pytest.approx(first - 80)
    flat = Trapezoid(0, 100, 0, 10, 80).frequencies(16, 16)
    assert torch.allclose(flat, torch.arange(16, dtype=torch.float64) - 7.5)
    with pytest.raises(ValueError, match="impossible times"):
        Trapezoid(10, 10, 10, 0, 31)


def test_regridding_is_exact_within_the_field_of_view() -> None:
    k = GRADIENT.frequencies(160, 160)
    x = torch.arange(160, dtype=torch.float64) - 80
    image = torch.where((x >= -50) & (x < 50), noise((160,)), 0)
    measured = (image * torch.exp(-2j * math.pi / 160 * k[:, None] * x)).sum(1) / math.sqrt(160)
    assert error(regridding(k, 160) @ measured, fft(image)) < 1e-9
    assert error(measured, fft(image)) > 0.5  # negative control: without
    jitter = regridding(k, 160) @ noise((160, 400))
    assert float(jitter.abs().square().mean()) < 2  # it does not blow up noise


def test_even_frequencies_stay_as_they_are() -> None:
    k = torch.arange(32, dtype=torch.float64) - 16
    assert error(regridding(k, 32), torch.eye(32, dtype=torch.complex128)) < 1e-10
    with pytest.raises(ValueError, match="increasing"):
        regridding(k.flip(0), 32)
