"""Classical MRI solvers: exact recovery, linear algebra, quality order, wavelets against PyWavelets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mri_problem import error, phantom, scan

from medrecon.coils.combine import birdcage_maps
from medrecon.core.measurement import Measurement
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.noncartesian import NonCartesianMRI
from medrecon.sampling.lines import random_mask
from medrecon.sampling.radial import golden_angles, radial
from medrecon.solvers.base import Solution
from medrecon.solvers.mri.cg_sense import CGSense, information
from medrecon.solvers.mri.zero_filled import ZeroFilled
from medrecon.solvers.variational.l1_wavelet import L1Wavelet, Wavelet, wavelet_matrix
from medrecon.solvers.variational.misfit import Misfit
from medrecon.solvers.variational.tv import TV


def solve(solver: CGSense | L1Wavelet | TV | ZeroFilled, A: CartesianMRI, y: Measurement) -> Solution:
    return solver(A, y, generator=torch.Generator().manual_seed(0))


def test_full_sampling_comes_back_exactly() -> None:
    x = phantom(33)
    A, y = scan(x, 1, 1e-3)
    y = Measurement(A(x[None]), y.precision)
    assert error(solve(ZeroFilled(), A, y).image[0], x) < 1e-5
    assert error(solve(CGSense(tikhonov=0.0), A, y).image[0], x) < 1e-5


def test_zero_filled_ignores_what_was_not_measured() -> None:
    A, y = scan(phantom(32), 2, 0.01)
    rubbish = torch.where(y.precision > 0, y.data, 7.0 + 0j)
    assert torch.equal(solve(ZeroFilled(), A, y).image, solve(ZeroFilled(), A, Measurement(rubbish, y.precision)).image)


def test_cg_sense_solves_the_regularised_normal_equations() -> None:
    """Against a dense solution in double precision, with uneven precision."""
    g = torch.Generator().manual_seed(0)
    A = CartesianMRI(birdcage_maps(3, (8, 7), g).to(torch.complex128), random_mask((8, 7), 2, 3, g))
    precision = (torch.rand(1, 3, 8, 7, generator=g, dtype=torch.float64) + 0.1) * A.sampled
    y = Measurement(torch.randn(1, 3, 8, 7, dtype=torch.complex128, generator=g), precision)
    dense = A(torch.eye(56, dtype=torch.complex128).reshape(56, 8, 7)).reshape(56, -1).T
    W = torch.diag(precision.flatten() + 0j)
    normal, right = dense.mH @ W @ dense, dense.mH @ W @ y.data.flatten()
    mu = 0.05 * float(information(A, y, Misfit(A, y), torch.Generator().manual_seed(0)))
    expected = torch.linalg.solve(normal + mu * torch.eye(56), right).reshape(8, 7)
    solution = solve(CGSense(iterations=80, tikhonov=0.05, discrepancy=0.0, tolerance=1e-9), A, y)
    assert solution.converged
    assert error(solution.image[0], expected) < 1e-6
    without = torch.linalg.solve(normal + 0.5 * mu * torch.eye(56), right).reshape(8, 7)
    assert error(solution.image[0], without) > 1e-3


@pytest.mark.parametrize("pixels", [1.0, 3.0])
def test_information_of_a_sample_is_its_precision(pixels: float) -> None:
    """1 / sigma^2 whatever R, trajectory and size, for maps of unit root-sum-of-squares; their square otherwise."""
    g = torch.Generator().manual_seed(1)
    shape, sigma = (48, 40), 0.2
    maps = pixels * birdcage_maps(4, shape, g)
    for A in (
        CartesianMRI(maps, random_mask(shape, 4, 6, g)),
        CartesianMRI(maps, torch.ones(shape)),
        NonCartesianMRI(radial(golden_angles(13), 96, shape), shape, maps),
    ):
        y = A(torch.ones(1, *shape, dtype=torch.complex64))
        seen = 1.0 if A.sampled is None else A.sampled.float()
        measured = Measurement(y, torch.as_tensor(seen / sigma**2).expand(1, *A.out_shape))
        found = float(information(A, measured, Misfit(A, measured), g))
        assert found == pytest.approx(pixels**2 / sigma**2, rel=0.1)


def test_cg_sense_stops_at_the_noise() -> None:
    A, y = scan(phantom(), 2, 0.01)
    stopped = solve(CGSense(discrepancy=1.0), A, y)
    assert stopped.converged
    assert stopped.residuals[-1] <= 1
    assert all(r > 1 for r in stopped.residuals[:-1])
    assert not solve(CGSense(iterations=1), A, y).converged


def test_quality_order() -> None:
    x = phantom()
    A, y = scan(x, 3, 0.02)
    errors = {type(s).__name__: error(solve(s, A, y).image[0], x) for s in (ZeroFilled(), CGSense(), L1Wavelet(), TV())}
    assert errors["TV"] < errors["L1Wavelet"] < errors["ZeroFilled"]
    assert errors["CGSense"] < errors["ZeroFilled"]
    assert errors["TV"] < 0.5 * errors["ZeroFilled"]


@pytest.mark.parametrize("n", [2, 6, 16])
def test_wavelet_steps_are_orthogonal(n: int) -> None:
    matrix = wavelet_matrix(n)
    assert torch.allclose(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), atol=1e-10)


def test_wavelets_are_those_of_pywavelets() -> None:
    """The same filters up to a shift of the grid and the sign of the details: equal norms of every band."""
    import pywt

    low = np.array(pywt.Wavelet("db4").rec_lo)
    assert np.allclose(wavelet_matrix(16)[0, :8].numpy(), low, atol=1e-9) or np.allclose(
        wavelet_matrix(16)[0, :8].numpy(), low[::-1], atol=1e-9
    )
    ramp = torch.arange(64, dtype=torch.float64) ** 3
    detail = (wavelet_matrix(64) @ ramp)[32:]
    # Four vanishing moments: cubics have no detail away from the wrap-around.
    assert float(detail[:28].abs().max()) < 1e-6 * float(ramp.max())


def test_wavelet_transform_inverts_and_keeps_the_norm(generator: torch.Generator) -> None:
    x = torch.randn(2, 32, 48, dtype=torch.complex64, generator=generator)
    wavelet = Wavelet((32, 48), 3, x)
    c = wavelet.forward(x)
    assert error(wavelet.inverse(c), x) < 1e-5
    assert float(c.norm() / x.norm()) == pytest.approx(1, abs=1e-5)
    smooth = torch.ones(32, 48)
    assert float(Wavelet((32, 48), 3, smooth).forward(smooth)[4:].abs().max()) < 1e-5


def test_l1_wavelet_of_full_sampling_is_a_soft_threshold() -> None:
    """Orthonormal A and W, fixed grid: the closed form, at the weight the image itself implies."""
    x = phantom(32)
    A, y = scan(x, 1, 0.2, coils=1)
    solver = L1Wavelet(strength=1.0, levels=2, iterations=400, tolerance=1e-6, spins=1)
    image = solve(solver, A, y).image
    wavelet = Wavelet((32, 32), 2, image)
    coefficients, data = wavelet.forward(image), wavelet.forward(A.adjoint(y.data))
    detail = torch.ones(32, 32, dtype=torch.bool)
    detail[:8, :8] = False
    # The least-squares start of full sampling is the data.
    total = float(coefficients[0, detail].abs().sum()) + float(data[0, detail].abs().sum()) / 4
    limit = 1.0 * 32 * 32 / total * 0.2**2
    size = data.abs()
    expected = torch.where(detail, data * (1 - limit / size.clamp_min(1e-12)).clamp_min(0), data)
    assert error(coefficients, expected) < 1e-3
    assert 0.05 < float((expected == 0).float().mean()) < 0.99


def test_l1_wavelet_converges_and_spins_help() -> None:
    x = phantom()
    A, y = scan(x, 3, 0.02)
    plain, spun = (solve(L1Wavelet(spins=k, iterations=300, tolerance=1e-4), A, y) for k in (1, 4))
    assert plain.converged
    assert spun.converged
    assert error(spun.image[0], x) < error(plain.image[0], x)


def test_strong_noise_does_not_flatten_the_image() -> None:
    """A weight taken from the image alone runs away: flatter image, stronger weight."""
    x = phantom()
    A, y = scan(x, 3, 0.3)
    for solver in (TV(), L1Wavelet()):
        image = solve(solver, A, y).image[0]
        assert error(image, x) < 0.5
        assert error(image, x) < 0.8 * error(solve(ZeroFilled(), A, y).image[0], x)


def test_odd_sizes() -> None:
    x = phantom(45)[:, :37].contiguous()
    A, y = scan(x, 2, 0.02)
    assert error(solve(L1Wavelet(), A, y).image[0], x) < 0.8 * error(solve(ZeroFilled(), A, y).image[0], x)


def test_real_slice(corpus: Path) -> None:
    """A brain slice at 128 x 128, R = 3: TV and L1-wavelet beat zero filling by some dB."""
    from PIL import Image

    sheet = np.asarray(Image.open(sorted((corpus / "val" / "mri_256").glob("*.png"))[0]), dtype=np.float32)
    middle = sheet.reshape(-1, 256, 256)[len(sheet) // 512]
    x = torch.from_numpy(middle.reshape(128, 2, 128, 2).mean((1, 3))) / 255 + 0j
    A, y = scan(x, 3, 0.02)
    errors = [error(solve(s, A, y).image[0], x) for s in (ZeroFilled(), L1Wavelet(iterations=40), TV(iterations=80))]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.8 * errors[0]
