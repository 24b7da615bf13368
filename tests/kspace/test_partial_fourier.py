"""Partial Fourier: exact for a known phase, better than zero filling for a smooth one, sensible for full k-space."""

from typing import Any

import pytest
import torch
from kspace_phantoms import phantom, relative, scan
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.kspace.partial_fourier import centre_phase, coverage
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.real_image import RealImage
from medrecon.sampling.lines import random_mask
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.mri.homodyne import Homodyne
from medrecon.solvers.mri.phase_constrained import PhaseConstrained
from medrecon.solvers.mri.pocs import POCS
from medrecon.solvers.mri.zero_filled import ZeroFilled

pytestmark = pytest.mark.usefixtures("one_thread")
SOLVERS = (Homodyne(), POCS(), PhaseConstrained(tikhonov=0.0, iterations=60))


def partial(size: int, eighths: int, axis: int = -1, late: bool = False) -> Tensor:
    """The first or last so many eighths of the lines."""
    line = torch.arange(size) < size * eighths // 8
    line = line.flip(0) if late else line
    return (line if axis == -1 else line[:, None]).expand(size, size).clone()


def solve(solver: Any, A: CartesianMRI, y: Measurement) -> Tensor:
    image: Tensor = solver(A, y, generator=torch.Generator().manual_seed(0)).image[0]
    return image


def exact(A: CartesianMRI, x: Tensor) -> Measurement:
    return Measurement(A(x[None]), (A.mask > 0).float()[:, None].expand(1, *A.out_shape))


@pytest.mark.parametrize("size", [33, 48])
@pytest.mark.parametrize(("axis", "late"), [(-1, False), (-1, True), (-2, False), (-2, True)])
def test_a_constant_phase_is_exact(size: int, axis: int, late: bool) -> None:
    """All of the image comes back from 5/8 (one line of an even size, -n/2, has no mirror image and may be lost)."""
    x = torch.polar(phantom(size), torch.tensor(0.7))
    A = CartesianMRI(torch.ones(1, size, size, dtype=torch.complex64), partial(size, 5, axis, late))
    y = exact(A, x)
    zero = relative(solve(ZeroFilled(), A, y), x)
    for solver in SOLVERS:
        assert relative(solve(solver, A, y), x) < (0.02 if size % 2 else 0.25) * zero, solver


@pytest.mark.parametrize("eighths", [5, 6])
def test_a_smooth_phase(eighths: int) -> None:
    """Eight coils, phase and coils on a finer grid."""
    A, y, truth = scan(partial(96, eighths).bool(), sigma=0.002)
    zero = relative(solve(ZeroFilled(), A, y).abs(), truth.abs())
    for solver in SOLVERS:
        assert relative(solve(solver, A, y).abs(), truth.abs()) < 0.7 * zero, solver


def test_the_exact_phase_makes_it_exact() -> None:
    size, g = 48, torch.Generator().manual_seed(0)
    angle = 3 * torch.rand(size, size, generator=g)
    phase, x = torch.polar(torch.ones(size, size), angle), phantom(size)
    A = CartesianMRI(torch.ones(1, size, size, dtype=torch.complex64), random_mask((size, size), 1.3, 8, g))
    solver = CGSense(iterations=300, tikhonov=0.0, tolerance=1e-7)
    known = solve(solver, A @ RealImage(phase), exact(A, phase * x))  # type: ignore[arg-type]
    assert relative(known, x) < 1e-3
    wrong = solve(CGSense(iterations=20), A @ RealImage(phase.conj()), exact(A, phase * x))  # type: ignore[arg-type]
    assert relative(wrong, x) > 0.1


def test_coverage_and_ramp() -> None:
    for n in (16, 17):
        found = coverage(partial(n, 5), -1)
        assert found.partial and coverage(partial(n, 5, -2), -2).partial and not coverage(partial(n, 5), -2).partial
        ramp, k = found.ramp(), torch.arange(n) - n // 2
        acquired = partial(n, 5)[0]
        assert float(ramp[~acquired].abs().max()) == 0
        pairs = [(i, int((-k[i]) + n // 2)) for i in range(n) if -k[i] + n // 2 < n]
        assert all(abs(float(ramp[i] + ramp[j]) - 2) < 1e-6 for i, j in pairs)
    two = torch.zeros(8, 8, dtype=torch.bool)
    two[:, [3, 6]] = True
    assert coverage(two, -1).gap == 3 and coverage(two.T, -2).gap == 3 and coverage(two.T, -1).gap == 1
    assert not coverage(random_mask((64, 64), 4, 8, torch.Generator().manual_seed(0)), -1).partial
    with pytest.raises(ValueError, match="zero frequency"):
        coverage(partial(16, 3), -1)


def test_full_kspace_needs_no_constraint() -> None:
    mask = random_mask((64, 64), 2, 12, torch.Generator().manual_seed(0))
    A, y, _ = scan(mask)
    assert torch.allclose(solve(Homodyne(), A, y), solve(ZeroFilled(), A, y), atol=1e-4)


def test_errors_are_clear() -> None:
    A, y, _ = scan(partial(64, 5) & partial(64, 6, -2))
    with pytest.raises(ValueError, match="both axes"):
        solve(Homodyne(), A, y)
    assert bool(torch.isfinite(solve(PhaseConstrained(), A, y).abs()).all())
    k = torch.ones(2, 8, 8, dtype=torch.complex64)
    with pytest.raises(ValueError, match="3 x 3"):
        centre_phase(k, partial(8, 4), k)
    with pytest.raises(ValueError, match="modulus"):
        RealImage(2 * k[0])
    with pytest.raises(ValueError, match="complex"):
        RealImage(k[0].real)
