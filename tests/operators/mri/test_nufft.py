"""The non-uniform Fourier transform and its Toeplitz normal operator: against the sum itself, SigPy and FINUFFT."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from medrecon.operators.check import adjoint_error
from medrecon.operators.mri.nufft.engine import Backend
from medrecon.operators.mri.nufft.gridding import Gridding, kernel_width
from medrecon.operators.mri.nufft.interpolation import _product
from medrecon.operators.mri.nufft.toeplitz import Toeplitz
from medrecon.operators.mri.nufft.transform import NUFFT

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = [(16, 15), (15, 22), (9, 9)]


def places(shape: tuple[int, ...], count: int = 90, seed: int = 0) -> Tensor:
    """Random k within N / 2, the edges and integers among them."""
    g = torch.Generator().manual_seed(seed)
    k = (torch.rand((count, len(shape)), generator=g, dtype=torch.float64) - 0.5) * torch.tensor(shape)
    k[0], k[1], k[2] = torch.tensor(shape) / 2, -torch.tensor(shape) / 2, 0.0
    k[3] = 1.0
    return k


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def matrix(k: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(S, pixels): the sum that defines the transform."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in shape), indexing="ij")
    phase = sum(k[:, a, None] * axes[a].flatten() / n for a, n in enumerate(shape))
    return torch.polar(torch.ones_like(phase), -2 * math.pi * phase) / math.sqrt(math.prod(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["gridding", "finufft"])
@pytest.mark.parametrize("eps", [1e-4, 2e-6, 1e-9, 1e-12])
def test_equals_the_sum_to_eps(shape: tuple[int, int], backend: Backend, eps: float) -> None:
    k, x = places(shape), randn(2, *shape)
    A = NUFFT(k, shape, eps=eps, backend=backend)
    exact = (matrix(k, shape) @ x.flatten(1).T).T
    # FINUFFT's own error is up to twice what it is asked for.
    assert relative(A(x), exact) < (eps if backend == "gridding" else 3 * eps)
    back = (matrix(k, shape).mH @ exact.T).T.reshape(x.shape)
    assert relative(A.adjoint(exact), back) < 3 * eps


def test_a_narrow_kernel_fails_the_bound() -> None:
    """The bound of 2e-6 can fail: a kernel narrower by two points misses it, and one with a wrong scaling too."""
    k, x = places((16, 15)), randn(1, 16, 15)
    exact = (matrix(k, (16, 15)) @ x.flatten(1).T).T
    width, oversampling = kernel_width(2e-6)
    assert relative(Gridding(k, (16, 15), width, oversampling).forward(x), exact) < 2e-6
    assert relative(Gridding(k, (16, 15), width - 2, oversampling).forward(x), exact) > 2e-5


def test_three_dimensions() -> None:
    k, x = places((4, 5, 3)), randn(2, 4, 5, 3)
    A = NUFFT(k, (4, 5, 3), eps=1e-12)
    assert A.backend == "finufft"
    assert relative(A(x), (matrix(k, (4, 5, 3)) @ x.flatten(1).T).T) < 1e-11


@pytest.mark.parametrize("shape", [(12, 9), (7, 8)])
def test_integer_coordinates_are_the_centred_fft(shape: tuple[int, int]) -> None:
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in shape)
    k = torch.cartesian_prod(rows, columns)
    x = randn(3, *shape)
    ifftshifted = torch.fft.ifftshift(x, dim=(-2, -1))
    expected = torch.fft.fftshift(torch.fft.fft2(ifftshifted, norm="ortho"), dim=(-2, -1)).flatten(1)
    assert relative(NUFFT(k, shape, eps=1e-12)(x), expected) < 1e-12
    assert relative(NUFFT(k, shape, eps=1e-12).adjoint(expected), x) < 1e-12


@pytest.mark.parametrize("shape", [(32, 24), (31, 27)])
def test_same_maths_as_sigpy(shape: tuple[int, int]) -> None:
    """The same kernel, width and oversampling: far closer to SigPy than SigPy is to the sum."""
    import sigpy

    k, x = places(shape, 300), randn(2, *shape)
    plan = Gridding(k, shape, 6, 2.0)
    reference = torch.from_numpy(sigpy.nufft(x.numpy(), k.numpy(), oversamp=2.0, width=6))
    exact = (matrix(k, shape) @ x.flatten(1).T).T
    assert relative(plan.forward(x), reference) < 2e-5
    assert relative(NUFFT(k, shape)(x), reference) < 2e-5
    default = torch.from_numpy(sigpy.nufft(x.numpy(), k.numpy()))
    assert relative(NUFFT(k, shape)(x), exact) < 1e-3 * relative(default, exact)


@pytest.mark.parametrize("backend", ["gridding", "finufft"])
@pytest.mark.parametrize("channels", [1, 3, 8, 11])
def test_adjoint_is_exact(backend: Backend, channels: int) -> None:
    """Far beyond the accuracy of the transform, for whole blocks of channels and for the rest."""
    shape = (17, 12)
    A = NUFFT(places(shape), shape, eps=2e-6, backend=backend)
    x, y = randn(channels, *shape), randn(channels, 90, seed=1)
    left, right = (A(x).conj() * y).sum(1), (x.conj() * A.adjoint(y)).sum((1, 2))
    assert float((left - right).abs().max() / left.abs().max()) < 1e-12
    assert adjoint_error(A, batch=channels) < 1e-6


def test_batch_is_item_by_item_and_layouts_do_not_matter() -> None:
    shape = (15, 22)
    A = NUFFT(places(shape), shape)
    x = randn(11, *shape, dtype=torch.complex64)
    y = A(x)
    for item in (0, 7, 10):
        assert relative(y[item], A(x[item])) < 1e-6
    turned = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not turned.is_contiguous() and torch.equal(A(turned), y)
    assert torch.equal(A(x.conj()), A(x.conj().resolve_conj()))
    samples = torch.stack([y, y], -1)[..., 0]
    assert not samples.is_contiguous() and torch.equal(A.adjoint(samples), A.adjoint(y))
    assert torch.equal(A.adjoint(y.conj()), A.adjoint(y.conj().resolve_conj()))


def test_read_only_input() -> None:
    import warnings

    import numpy as np

    shape = (15, 22)
    A = NUFFT(places(shape), shape)
    x = randn(2, *shape, dtype=torch.complex64).numpy()
    frozen = x.copy()
    frozen.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of arrays that cannot be written
        y = A(torch.from_numpy(frozen))
        assert torch.equal(y, A(torch.from_numpy(x)))
        samples = y.numpy().copy()
        samples.setflags(write=False)
        assert torch.equal(A.adjoint(torch.from_numpy(samples)), A.adjoint(y))
    assert np.array_equal(x, frozen)


def test_derivatives() -> None:
    shape = (7, 6)
    A = NUFFT(places(shape, 12), shape)
    x = randn(2, *shape).requires_grad_(True)
    assert torch.autograd.gradcheck(A, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(A, (x,), fast_mode=True)


@pytest.mark.parametrize("shape", [*SHAPES, (4, 5, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_toeplitz_is_the_normal_operator(shape: tuple[int, ...], weighted: bool) -> None:
    k, x = places(shape), randn(2, *shape)
    w = torch.rand(len(k), dtype=torch.float64) if weighted else None
    dense = matrix(k, shape)
    exact = (dense.mH @ ((1.0 if w is None else w[:, None]) * (dense @ x.flatten(1).T))).T.reshape(x.shape)
    assert relative(Toeplitz(k, shape, w, eps=1e-12)(x), exact) < 1e-11
    single = Toeplitz(k, shape, w)(x.to(torch.complex64))
    assert relative(single.to(torch.complex128), exact) < 1e-6


def test_toeplitz_of_a_shifted_grid_is_wrong() -> None:
    """Negative control: half a step in k is seen."""
    k, x = places((16, 15)), randn(1, 16, 15)
    A = NUFFT(k, (16, 15))
    assert relative(Toeplitz(k * 0.98, (16, 15))(x), A.adjoint(A(x))) > 1e-2


@pytest.mark.parametrize("shape", [(15, 22), (4, 3)])
def test_the_matrices_of_a_gpu_are_the_compiled_loops(shape: tuple[int, int]) -> None:
    """Both ways of interpolating, where there is no GPU too; grids narrower than the kernel as well."""
    plan = Gridding(places(shape), shape, 8, 1.5)._interpolation
    grid, y = randn(3, *plan.grid_shape), randn(3, 90, seed=1)
    ahead, back = plan._matrices(grid)
    order = plan._samples[0]
    assert relative(_product(ahead, grid.flatten(1)), plan.to_samples(grid)[:, order]) < 1e-14
    assert relative(_product(back, y[:, order]).view_as(grid), plan.to_grid(y)) < 1e-14


BITS = """
import numba, torch
from medrecon.operators.mri.nufft.transform import NUFFT
g = torch.Generator().manual_seed(0)
A = NUFFT((torch.rand((3000, 2), generator=g) - 0.5) * 60, (60, 61))
x = torch.randn((11, 60, 61), dtype=torch.complex64, generator=g)
torch.set_num_threads(1)
found = []
for count in (1, 2, 3):
    numba.set_num_threads(count)
    found.append((A(x), A.adjoint(A(x))))
    assert all(map(torch.equal, found[0], found[-1])), count
print(len(found))
"""


def test_same_bits_for_any_number_of_threads() -> None:
    env = {"NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", BITS], capture_output=True, text=True, env=env, timeout=120)
    assert done.stdout == "3\n", done.stderr


def test_bad_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    k = places((8, 6), 20)
    nan, far = k.clone(), k.clone()
    nan[7, 1], far[5, 0] = math.nan, 4.1
    for bad, message in (
        (nan, "NaN or infinite at sample 7"),
        (far, r"1 samples lie beyond .*first is sample 5"),
        (k.T, r"\(S, 2\)"),
        (k[:0], r"\(S, 2\)"),
        (k[:, :1], r"\(S, 2\)"),
        (k.reshape(4, 5, 2), "one after the other"),
        (k.to(torch.complex64), "real"),
    ):
        with pytest.raises(ValueError, match=message):
            NUFFT(bad, (8, 6))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        NUFFT(k, (8,))
    with pytest.raises(ValueError, match="eps"):
        NUFFT(k, (8, 6), eps=0.0)
    with pytest.raises(ValueError, match="2D"):
        NUFFT(places((3, 4, 5)), (3, 4, 5), backend="gridding")
    with pytest.raises(ValueError, match="backend"):
        NUFFT(k, (8, 6), backend="sigpy")  # type: ignore[arg-type]
    for weights in (torch.ones(19), -torch.ones(20), torch.full((20,), math.nan)):
        with pytest.raises(ValueError, match="weights"):
            Toeplitz(k, (8, 6), weights)
    monkeypatch.setattr("medrecon.operators.mri.nufft.engine.installed", lambda: False)
    with pytest.raises(ImportError, match=r"pip install 'medrecon\[mri\]'"):
        NUFFT(places((3, 4, 5)), (3, 4, 5))


def test_trajectory_of_any_real_dtype() -> None:
    k = places((8, 6)).round()
    expected = NUFFT(k, (8, 6))(randn(8, 6))
    for dtype in (torch.float32, torch.int64):
        assert torch.equal(NUFFT(k.to(dtype), (8, 6))(randn(8, 6)), expected)
