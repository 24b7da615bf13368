"""CartesianMRI: the laws, equality with SigPy, closed forms, orientation, errors."""

import math
import warnings
from collections import Counter

import numpy as np
import pytest
import torch

from medrecon.coils.combine import birdcage_maps
from medrecon.operators.base import LinearOperator
from medrecon.operators.check import adjoint_error, check_operator
from medrecon.operators.mri import cartesian as mri
from medrecon.operators.mri import line_prox
from medrecon.operators.mri.cartesian import CartesianMRI, Method
from medrecon.sampling.lines import random_mask

pytestmark = pytest.mark.usefixtures("one_thread")
DOUBLE = torch.complex128
SHAPES = [(12, 10), (13, 9), (7, 12)]
KINDS = ["columns", "rows", "scattered", "weighted columns"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def _randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def _mask(kind: str, shape: tuple[int, int], seed: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    if kind == "rows":
        return random_mask(shape[::-1], 2, 2, g).mT
    if kind == "scattered":
        return torch.rand(shape, generator=g) < 0.4
    line = random_mask(shape, 2, 2, g)
    return line * torch.rand(shape[1], generator=g) if kind == "weighted columns" else line


def _phase(*shape: int, seed: int = 4) -> torch.Tensor:
    angle = 6 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.polar(torch.ones_like(angle), angle)


def _operator(
    kind: str, shape: tuple[int, int], coils: int = 3, dtype: torch.dtype = DOUBLE, items: int = 0
) -> CartesianMRI:
    """With a phase; with maps, mask and phase of its own for each of `items`."""
    if not items:
        return CartesianMRI(_randn(coils, *shape, seed=9, dtype=dtype), _mask(kind, shape), _phase(*shape))
    masks = torch.stack([_mask(kind, shape, i) for i in range(items)])
    return CartesianMRI(_randn(items, coils, *shape, seed=9, dtype=dtype), masks, _phase(items, *shape))


def _dense(A: CartesianMRI, items: int) -> torch.Tensor:
    """(items, outputs, pixels)."""
    pixels = math.prod(A.in_shape)
    basis = torch.eye(pixels, dtype=DOUBLE).reshape(pixels, 1, *A.in_shape).expand(-1, items, -1, -1)
    return torch.stack([A(e).flatten(1) for e in basis], dim=-1)


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


@every_kind
@every_shape
@pytest.mark.parametrize("items", [0, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex64, 1e-6), (DOUBLE, 1e-13)])
def test_adjoint_and_normal_operator_are_exact_to_their_precision(
    kind: str, shape: tuple[int, int], items: int, dtype: torch.dtype, tolerance: float
) -> None:
    A = _operator(kind, shape, dtype=dtype, items=items)
    assert A.in_dtype == dtype
    assert adjoint_error(A) < tolerance
    x = _randn(3, *shape, dtype=dtype)
    assert A.gram(x).dtype == dtype
    assert _relative(A.gram(x), A.adjoint(A(x))) < 5 * tolerance


@every_kind
@every_shape
def test_batches_equal_sigpy_item_by_item(kind: str, shape: tuple[int, int]) -> None:
    import sigpy.mri

    A = _operator(kind, shape, dtype=torch.complex64, items=2)
    x, y = _randn(2, 1, *shape), _randn(2, 1, 3, *shape, seed=1)
    phase = _phase(2, *shape).to(torch.complex64)
    for i in range(2):
        S = sigpy.mri.linop.Sense((A.maps[i] * phase[i]).numpy(), weights=A.mask[i].square().numpy())
        for ours, theirs in (
            (A(x), S * x[i, 0].numpy()),
            (A.adjoint(y), S.H * y[i, 0].numpy()),
            (A.gram(x), S.N * x[i, 0].numpy()),
        ):
            assert _relative(ours[i, 0], torch.from_numpy(theirs)) < 1e-6


@pytest.mark.parametrize("kind", ["columns", "rows"])
@every_shape
def test_normal_operator_of_lines_is_that_of_any_mask(kind: str, shape: tuple[int, int]) -> None:
    maps, line = _randn(3, *shape, dtype=DOUBLE), _mask(kind, shape)
    # A second mask without lines takes the fast path away from both.
    general = CartesianMRI(maps, torch.stack([line, _mask("scattered", shape)]))
    fast = CartesianMRI(maps, line)
    assert "direct" in fast._methods() and "direct" not in general._methods()
    x = _randn(2, *shape, dtype=DOUBLE)
    assert _relative(fast.gram(x)[0], general.gram(x)[0]) < 1e-13


def test_a_mask_shifted_the_wrong_way_fails_at_odd_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, wrong in (((13, 9), True), ((12, 10), False)):
        A, x = _operator("scattered", shape), _randn(1, *shape, dtype=DOUBLE)
        exact = A.adjoint(A(x))
        with monkeypatch.context() as patch:
            patch.setattr(mri.torch.fft, "ifftshift", torch.fft.fftshift)
            error = _relative(A.gram(x), exact)
        assert error > 0.1 if wrong else error < 1e-13


def test_large_odd_sizes_stay_exact_in_complex64() -> None:
    """Ramps made in float32 would be off by 1e-5 here."""
    maps, x, line = _randn(1, 641, 369), _randn(641, 369), _mask("columns", (641, 369))
    single, double = CartesianMRI(maps, line), CartesianMRI(maps.to(DOUBLE), line)
    assert _relative(single(x), double(x.to(DOUBLE))) < 5e-7
    assert _relative(single.gram(x), double.gram(x.to(DOUBLE))) < 5e-7


@pytest.mark.parametrize("kind", ["columns", "scattered"])
@pytest.mark.parametrize("coils_at_once", [1, 2])
def test_chunks_change_nothing(kind: str, coils_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    A = _operator(kind, (9, 8), coils=3, items=2)
    x, y = _randn(2, 9, 8, dtype=DOUBLE), _randn(2, 3, 9, 8, dtype=DOUBLE)
    whole = A(x), A.adjoint(y), A.gram(x)
    monkeypatch.setitem(mri._CHUNK, "core", coils_at_once * 72)
    for ours, expected in zip((A(x), A.adjoint(y), A.gram(x)), whole, strict=True):
        assert _relative(ours, expected) < 1e-14


def test_maps_are_not_copied() -> None:
    maps = _randn(2, 8, 7)
    A = CartesianMRI(maps, _mask("columns", (8, 7)))
    assert A.maps.data_ptr() == maps.data_ptr() == A.with_phase(_phase(8, 7)).maps.data_ptr()


def test_phase_is_taken_off_the_image() -> None:
    A, x, first = _operator("columns", (9, 8)), _randn(2, 9, 8, dtype=DOUBLE), _phase(9, 8)
    plain, second = A.with_phase(None), _phase(2, 9, 8, seed=8)
    assert A.phase is not None and plain.phase is None
    assert _relative(A(x), plain(first * x)) < 1e-13
    counted = Counter(A.calls.images)
    other = A.with_phase(second)
    assert _relative(other(x), plain(second * x)) < 1e-13
    assert _relative(other.adjoint(plain(second * x)), second.conj() * plain.gram(second * x)) < 1e-13
    assert A.calls.images == counted and other.calls.images == {"forward": 2, "adjoint": 2}  # each counts its own
    with pytest.raises(ValueError, match=r"of 2 items, but the batch has 3"):
        other(_randn(3, 9, 8, dtype=DOUBLE))


def test_conjugated_strided_and_read_only_data(generator: torch.Generator) -> None:
    shape = (9, 8)
    maps, mask, phase = _randn(3, *shape), _mask("columns", shape), _phase(*shape)
    A, x, y = CartesianMRI(maps, mask, phase), _randn(2, *shape), _randn(2, 3, *shape)
    wide = CartesianMRI(maps.movedim(0, -1).contiguous().movedim(-1, 0), mask.mT.contiguous().mT, phase)
    turned = CartesianMRI(maps.conj().resolve_conj().conj(), mask, phase.conj().resolve_conj().conj())
    locked = x.numpy().copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of it once a process
        read_only = torch.from_numpy(locked)
    for call, v in (("forward", x), ("gram", x), ("adjoint", y)):
        expected = getattr(A, call)(v)
        views = [v.conj().resolve_conj().conj(), torch.stack([v, v], dim=-1)[..., 0], v.mT.contiguous().mT]
        for view in views:
            assert _relative(getattr(A, call)(view), expected) < 1e-6
        assert _relative(getattr(wide, call)(v), expected) < 1e-6
        assert _relative(getattr(turned, call)(v), expected) < 1e-6
    assert torch.equal(A(read_only), A(x)) and torch.equal(A.gram(read_only), A.gram(x))
    assert np.array_equal(locked, x.numpy())
    assert torch.equal(A.prox(read_only, y, 0.1), A.prox(x, y, 0.1))


@pytest.mark.parametrize("kind", ["columns", "rows", "scattered"])
def test_derivatives(kind: str) -> None:
    A = _operator(kind, (4, 5), coils=2, items=2)
    x, y = _randn(2, 4, 5, dtype=DOUBLE).requires_grad_(True), _randn(2, 2, 4, 5, dtype=DOUBLE).requires_grad_(True)
    for call, v in ((A.gram, x), (A.adjoint, y)):  # forward: the contract tests
        assert torch.autograd.gradcheck(call, (v,), fast_mode=True)
        assert torch.autograd.gradgradcheck(call, (v,), fast_mode=True)
    if kind != "scattered":
        solve = lambda z, y: A.prox(z, y, 0.3, method="direct")  # noqa: E731
        assert torch.autograd.gradcheck(solve, (x, y), fast_mode=True)
        assert torch.autograd.gradgradcheck(solve, (x, y), fast_mode=True)


def test_maps_and_masks_of_each_item_act_on_that_item_alone(generator: torch.Generator) -> None:
    maps = torch.stack([birdcage_maps(3, (7, 10), generator) for _ in range(2)])
    masks = torch.stack([random_mask((7, 10), 2, 2, generator) for _ in range(2)])
    x = _randn(2, 7, 10)
    y = CartesianMRI(maps, masks)(x)
    for i in range(2):
        assert _relative(y[i], CartesianMRI(maps[i], masks[i])(x[i])) < 1e-6
    with pytest.raises(ValueError, match=r"of 2 items, but the batch has 3"):
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
        width
        * math.sqrt(2 * math.pi / size)
        * torch.exp(-2 * (math.pi * width * frequency) ** 2)
        * torch.exp(-2j * math.pi * frequency * s)
        for s in shift
    ]
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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex64, 2e-6), (DOUBLE, 1e-12)])
@pytest.mark.parametrize("items", [0, 2])
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((k, "direct") for k in KINDS if k != "scattered"),
        *((k, "cg") for k in KINDS),
        *((k, "closed form") for k in KINDS),
    ],
)
def test_prox_is_the_dense_solution(
    kind: str, method: Method, items: int, dtype: torch.dtype, tolerance: float
) -> None:
    shape = (9, 8)
    A = _operator(kind, shape, coils=1 if method == "closed form" else 3, dtype=dtype, items=items)
    if method == "closed form":
        A = CartesianMRI(A.maps / A.maps.abs(), A.mask, A.phase)
    z, y = _randn(2, *shape, dtype=dtype), _randn(2, 3 if method != "closed form" else 1, *shape, dtype=dtype)
    for weight in (0.3, torch.tensor([0.1, 2.0], dtype=torch.float64)):
        x = A.prox(z, y, weight, iterations=300, tolerance=tolerance / 10, method=method)
        wide, mu = _dense(A, 2), torch.as_tensor(weight, dtype=torch.float64).reshape(-1, 1)
        left = wide.mH @ wide + mu[..., None] * torch.eye(72)
        right = (wide.mH @ y.to(DOUBLE).flatten(1)[..., None])[..., 0] + mu * z.to(DOUBLE).flatten(1)
        expected = torch.linalg.solve(left, right).reshape(x.shape)
        assert _relative(x.to(DOUBLE), expected) < tolerance * (20 if method == "cg" else 1)
        assert _relative(A.prox(z, y, 2 * mu[:, 0], method=method).to(DOUBLE), expected) > 1e-3


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_direct_prox_at_full_size_and_both_ends_of_the_weight(kind: str) -> None:
    """Residual below 1e-6 in complex64; towards 0 the least-squares solution, towards infinity z itself."""
    g = torch.Generator().manual_seed(0)
    A = CartesianMRI(birdcage_maps(6, (33, 128), g), _mask(kind, (33, 128)))
    double = CartesianMRI(A.maps.to(DOUBLE), A.mask)
    z, truth = _randn(1, 33, 128), _randn(1, 33, 128, seed=5)
    y = A(truth)
    for weight in (1e-4, 1e-2, 1.0, 1e4):
        x = A.prox(z, y, weight, method="direct")
        right = double.adjoint(y.to(DOUBLE)) + weight * z.to(DOUBLE)
        assert _relative(double.gram(x.to(DOUBLE)) + weight * x.to(DOUBLE), right) < 1e-6
    assert _relative(A.prox(z, y, 1e9, method="direct"), z) < 1e-6
    small = double.prox(z.to(DOUBLE), y.to(DOUBLE), 1e-11, method="direct")
    assert _relative(double(small), y.to(DOUBLE)) < 1e-6


def test_prox_chooses_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    shape = (6, 100)
    A = CartesianMRI(birdcage_maps(3, shape, g), random_mask(shape, 3, 8, g))
    z, y = _randn(2, *shape), _randn(2, 3, *shape)
    assert CartesianMRI(birdcage_maps(1, shape, g), A.mask).prox_method(0.1) == "closed form"
    assert CartesianMRI(A.maps, torch.rand(shape, generator=g)).prox_method(0.1) == "cg"
    assert CartesianMRI(A.maps[..., :64], A.mask[..., :64]).prox_method(0.1) == "direct"  # short lines
    assert A.prox_method(0.1) == "cg"
    first = A.prox(z, y, 0.1, iterations=100, tolerance=1e-6)
    assert A.prox_method(0.1) == A.with_phase(_phase(*shape)).prox_method(0.1) == "direct"
    assert A.prox_method(0.2) == "cg"
    assert _relative(A.prox(z, y, 0.1), first) < 1e-4
    weight = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert A.prox_method(weight) == "cg"
    assert torch.autograd.grad(A.prox(z, y, weight).abs().sum(), weight)[0].isfinite()
    each = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert A.prox_method(each) == "cg"
    A.prox(z, y, each)
    assert A.prox_method(each) == "direct"
    monkeypatch.setattr(line_prox, "CACHE_BYTES", 6 * 100 * 100 * 8)
    assert A.prox_method(0.1) == "direct" and A.prox_method(each) == "cg"


def test_prox_keeps_factors_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, made = (5, 8), []
    size = 5 * 8 * 8 * 8
    A = _operator("columns", shape, dtype=torch.complex64, items=3)
    z, y = _randn(3, *shape), _randn(3, 3, *shape)
    assert A._lines is not None
    make = line_prox.LineSystems._make
    monkeypatch.setattr(line_prox.LineSystems, "_make", lambda *a: made.append(a[1]) or make(*a))  # type: ignore[func-returns-value]
    for _ in range(2):
        A.prox(z, y, 0.1)
    assert len(made) == len(A._lines._factors) == 3
    A.with_phase(None).prox(z, y, 0.1)
    assert len(made) == 3
    expected = A.prox(z, y, 0.2)
    for bound, kept in ((2 * size, 2), (size - 1, 0)):
        monkeypatch.setattr(line_prox, "CACHE_BYTES", bound)
        assert A.prox_method(0.2) == "cg"
        A._lines._factors.clear()
        assert torch.equal(A.prox(z, y, 0.2, method="direct"), expected)
        assert len(A._lines._factors) == kept


def test_prox_refuses_what_it_cannot_do() -> None:
    A, z, y = _operator("scattered", (6, 5)), _randn(6, 5), _randn(3, 6, 5)
    for weight in (0.0, -1.0, float("nan"), torch.tensor([0.1, 0.0])):
        with pytest.raises(ValueError, match="weight must be positive"):
            A.prox(z, y, weight)
    for method in ("direct", "closed form"):
        with pytest.raises(ValueError, match="not among"):
            A.prox(z, y, 0.1, method=method)
    with pytest.raises(ValueError, match="do not fit"):
        A.prox(z.expand(2, 6, 5), y.expand(2, 3, 6, 5), torch.ones(3))


def test_norm_is_one_for_normalised_maps(generator: torch.Generator) -> None:
    A = CartesianMRI(birdcage_maps(1, (12, 9), generator), random_mask((12, 9), 2, 3, generator))
    assert abs(A.norm() - 1) < 1e-3


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_refuses_what_does_not_fit(generator: torch.Generator) -> None:
    maps, mask = birdcage_maps(2, (8, 6), generator), torch.ones(8, 6)
    broken = maps.clone()
    broken[0, 0, 0] = complex("nan")
    cases = [
        (maps, mask * 0, "no sample"),
        (maps, torch.ones(8, 7), "mask must be real"),
        (broken, mask, "NaN"),
        (maps.real, mask, "maps are complex"),
        (maps[0], mask, "maps are complex"),
        (maps.expand(2, -1, -1, -1), mask.expand(3, -1, -1), "2 sets of maps but 3 masks"),
        (maps, mask * float("nan"), "mask has NaN"),
        (maps.movedim(0, -1), mask, r"\(H, W, C\).*movedim"),
        (maps, mask[0], "mask of columns"),
        (maps, mask.mT, "transposed"),
        (maps[..., :5], mask, "mask must be real"),
        (maps.to(torch.complex32), mask, "complex64 or complex128"),
    ]
    for m, k, message in cases:
        with pytest.raises(ValueError, match=message):
            CartesianMRI(m, k)
    with pytest.raises(TypeError, match="complex"):
        CartesianMRI(maps, mask)(torch.zeros(8, 6))


def test_refuses_what_is_no_phase(generator: torch.Generator) -> None:
    maps, mask, phase = birdcage_maps(2, (8, 6), generator), torch.ones(8, 6), _phase(8, 6)
    cases = [
        (phase.angle(), "radians"),
        (2 * phase, "modulus 1"),
        (phase * float("nan"), "modulus 1"),
        (phase.mT, "phase must be complex"),
        (phase[None, None], "phase must be complex"),
        (phase * 0, "modulus 1"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            CartesianMRI(maps, mask, wrong)
        with pytest.raises(ValueError, match=message):
            CartesianMRI(maps, mask).with_phase(wrong)
