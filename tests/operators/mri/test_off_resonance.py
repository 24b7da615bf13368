"""OffResonance: against the exact sum, the error with the number of segments, correction of a distorted image."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.numerics.linalg import cg
from medrecon.operators.base import LinearOperator
from medrecon.operators.check import adjoint_error, check_operator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.off_resonance import OffResonance
from medrecon.sampling.lines import random_mask

SHAPE = (20, 17)
pytestmark = pytest.mark.usefixtures("one_thread")


class Nudft(LinearOperator):
    """y (C, S) = sum_r maps(r) x(r) exp(-2 pi i k r) / sqrt(HW), the sum itself: a non-Cartesian operator."""

    in_dtype = out_dtype = torch.complex64

    def __init__(self, maps: Tensor, trajectory: Tensor) -> None:
        self.maps = maps
        self.in_shape = tuple(maps.shape[1:])
        self.out_shape = (len(maps), len(trajectory))
        rows, cols = (torch.arange(n, dtype=torch.float64) - n // 2 for n in self.in_shape)
        k = trajectory.double()
        turns = k[:, :1, None] * rows[:, None] / len(rows) + k[:, 1:, None] * cols / len(cols)
        self.matrix = torch.exp(-2j * math.pi * turns).reshape(len(k), -1) / math.sqrt(len(rows) * len(cols))

    def _forward(self, x: Tensor) -> Tensor:
        return (self.maps.to(x) * x[:, None]).flatten(2) @ self.matrix.to(x).T

    def _adjoint(self, y: Tensor) -> Tensor:
        coils = (y @ self.matrix.to(y).conj()).reshape(len(y), *self.maps.shape)
        return (self.maps.to(y).conj() * coils).sum(1)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(torch.ones(1, 3, 4, dtype=torch.complex64), torch.zeros(2, 2))


def _field(scale: float = 80.0) -> Tensor:
    """Hz: a smooth off-resonance such as that of air-filled cavities, one peak above a gradient."""
    y, x = torch.linspace(-1, 1, SHAPE[0])[:, None], torch.linspace(-1, 1, SHAPE[1])
    return scale * (1.5 * torch.exp(-8 * ((y - 0.3).square() + (x + 0.2).square())) + 0.3 * x - 0.2)


def _cartesian(coils: int = 2, accel: float = 2.0) -> CartesianMRI:
    g = torch.Generator().manual_seed(1)
    maps = birdcage_maps(coils, SHAPE, g).to(torch.complex128)
    return CartesianMRI(maps, random_mask(SHAPE, accel, 3, g))


def _spiral() -> tuple[Nudft, Tensor]:
    t = torch.linspace(0, 1, 300, dtype=torch.float64)
    angle, radius = 2 * math.pi * 9 * t, 8 * t
    maps = birdcage_maps(2, SHAPE, torch.Generator().manual_seed(1))
    return Nudft(maps, torch.stack([radius * angle.sin(), radius * angle.cos()], 1)), 0.02 * t


def _image() -> Tensor:
    return torch.randn(SHAPE, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))


def _exact(A: LinearOperator, x: Tensor, rate: Tensor, times: Tensor) -> Tensor:
    """The samples of each time from a transform of their own."""
    y = torch.zeros(A.out_shape, dtype=x.dtype)
    spread = times.double().expand(A.out_shape[1:])
    for t in spread.unique():
        y += torch.where(spread == t, A(torch.exp(-rate * t) * x), 0)
    return y


def _relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def test_the_reference_is_the_double_sum() -> None:
    """One coil, everything written out: y(k) = sum_r x(r) exp(-2 pi i b0(r) t(k)) exp(-2 pi i k r) / sqrt(HW)."""
    A = CartesianMRI(torch.ones(1, *SHAPE, dtype=torch.complex128), torch.ones(SHAPE))
    times, x, b0 = torch.linspace(0, 8e-3, SHAPE[0])[:, None], _image(), _field()
    m, n = (torch.arange(size, dtype=torch.float64) - size // 2 for size in SHAPE)
    y = torch.zeros(SHAPE, dtype=torch.complex128)
    for i, t in enumerate(times[:, 0].double()):
        distorted = x * torch.exp(-2j * math.pi * b0.double() * t)
        line = torch.exp(-2j * math.pi * m[i] * m / SHAPE[0]) @ distorted
        y[i] = torch.exp(-2j * math.pi * n[:, None] * n / SHAPE[1]) @ line / math.sqrt(SHAPE[0] * SHAPE[1])
    assert _relative(_exact(A, x, 2j * math.pi * b0.double(), times)[0], y) < 1e-12
    assert _relative(OffResonance(A, b0, times, tolerance=1e-6)(x)[0], y) < 3e-6
    assert _relative(OffResonance(A, -b0, times, tolerance=1e-6)(x)[0], y) > 0.1  # the sign matters


@pytest.mark.parametrize("kind", ["cartesian", "spiral"])
@pytest.mark.parametrize("decaying", [False, True])
def test_the_error_falls_with_the_segments_to_the_tolerance(kind: str, decaying: bool) -> None:
    A, times = _spiral() if kind == "spiral" else (_cartesian(), torch.linspace(-4e-3, 4e-3, SHAPE[0])[:, None] + 4e-3)
    decay = 30 + 20 * _field() / 80 if decaying else None
    rate = torch.complex(torch.zeros(SHAPE) if decay is None else decay, 2 * math.pi * _field()).to(torch.complex128)
    x = _image()
    exact = _exact(A, x, rate, times)
    errors = []
    for segments in (1, 2, 4, 6, 8, 10, 14):
        B = OffResonance(A, _field(), times, segments, decay=decay)
        errors.append(_relative(B(x), exact))
    assert errors[0] > 0.1 and errors[-1] < 1e-4
    assert all(late < early for early, late in zip(errors, errors[1:], strict=False) if early > 1e-8)
    chosen = OffResonance(A, _field(), times, decay=decay)
    assert _relative(chosen(x), exact) < 1.5e-4 and chosen.error <= 1e-4
    fewer = OffResonance(A, _field(), times, chosen.segments - 1, decay=decay)
    assert fewer.error > 1e-4
    assert _relative(OffResonance(A, _field(), times, 1)(x), exact) > 0.1


def test_segments_grow_with_the_phase_that_is_accrued() -> None:
    times = torch.linspace(0, 8e-3, SHAPE[0])[:, None]
    counts = [OffResonance(_cartesian(), _field(scale), times).segments for scale in (0.0, 20.0, 80.0, 320.0)]
    assert counts[0] == 1 and counts == sorted(set(counts))
    rough = OffResonance(_cartesian(), _field(), times, tolerance=1e-2)
    assert rough.segments < counts[2]


def test_laws_in_double_precision_and_with_too_many_segments() -> None:
    A, times = _spiral()
    check_operator(OffResonance(A, _field(), times))
    many = OffResonance(A, _field(), times, 40)
    assert adjoint_error(many) < 1e-6
    assert _relative(many(_image().to(torch.complex64)), many(_image()).to(torch.complex64)) < 1e-5  # rounding stays
    g = torch.Generator().manual_seed(0)
    x = torch.randn((2, *many.in_shape), dtype=torch.complex128, generator=g)
    y = torch.randn((2, *many.out_shape), dtype=torch.complex128, generator=g)
    left, right = (many(x).conj() * y).sum(), (x.conj() * many.adjoint(y)).sum()
    assert abs(left - right) < 1e-12 * float(many(x).norm() * y.norm())


def test_without_field_it_is_the_operator_itself() -> None:
    A, x = _cartesian(), _image()
    B = OffResonance(A, torch.zeros(SHAPE), torch.linspace(0, 1e-2, SHAPE[0])[:, None])
    assert B.segments == 1 and _relative(B(x), A(x)) < 1e-12


def test_a_constant_field_shifts_the_image_along_the_readout() -> None:
    """One pixel of the readout is 1 / duration in Hz: an off-resonance of 2 of them moves the image by 2 pixels."""
    A = CartesianMRI(torch.ones(1, *SHAPE, dtype=torch.complex128), torch.ones(SHAPE))
    dwell = 2e-4
    times = (torch.arange(SHAPE[0], dtype=torch.float64) - SHAPE[0] // 2)[:, None] * dwell
    b0 = torch.full(SHAPE, 2 / (SHAPE[0] * dwell), dtype=torch.float64)
    image = A.adjoint(OffResonance(A, b0, times, tolerance=1e-8)(_image()))
    assert _relative(image, _image().roll(2, 0)) < 1e-6


def test_solving_with_the_field_map_removes_the_distortion() -> None:
    """24 spokes of a smooth object: 10 ms of readout at up to 100 Hz blur it beyond use unless the model knows them."""
    spokes = [
        torch.linspace(-8, 8, 60)[:, None] * torch.tensor([[math.sin(1.9416 * i), math.cos(1.9416 * i)]])
        for i in range(24)
    ]
    A = Nudft(_cartesian().maps[0], torch.cat(spokes))
    times = torch.linspace(0, 0.01, 60).repeat(24)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in SHAPE), indexing="ij")
    truth = torch.exp(-4 * (y.square() + x.square())) + 0.7 * torch.exp(-20 * ((y - 0.4).square() + (x + 0.3).square()))
    truth = truth.to(torch.complex128)
    data = _exact(A, truth, 2j * math.pi * _field().double(), times)
    errors = []
    for B in (A, OffResonance(A, _field(), times)):
        image = cg(B.gram, B.adjoint(data), ndim=2, iterations=30, tolerance=1e-8).x
        errors.append(_relative(image, truth))
    assert errors[1] < 0.02 and errors[0] > 10 * errors[1]


def test_one_field_map_serves_any_batch() -> None:
    A, times = _cartesian(), torch.linspace(0, 8e-3, SHAPE[0])[:, None]
    assert OffResonance(A, _field(), times).items == A.items == 1
    assert OffResonance(A, torch.stack([_field(), _field(40.0), _field(10.0)]), times).items == 3


def test_refusals() -> None:
    A, times, b0 = _cartesian(), torch.linspace(0, 8e-3, SHAPE[0])[:, None], _field()
    for field, when, decay, message in [
        (b0.T, times, None, "b0 must be"),
        (b0, times[:-1], None, "times"),
        (b0 * math.nan, times, None, "finite"),
        (b0, times, b0[0], "decay"),
        (b0, times, b0 - 1e4, ">= 0"),
        (b0 * 1e6, times, None, "in Hz and seconds"),
    ]:
        with pytest.raises(ValueError, match=message):
            OffResonance(A, field, when, decay=decay)
    with pytest.raises(ValueError, match=r"of 3 items, but the batch has 2"):
        OffResonance(A, b0.expand(3, -1, -1), times)(torch.zeros(2, *SHAPE, dtype=torch.complex64))
