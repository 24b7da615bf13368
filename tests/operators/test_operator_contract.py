"""Every LinearOperator in medrecon.operators, found by itself, obeys the contract on each of its examples."""

import functools
import math
from copy import copy

import pytest
import torch
from torch import Tensor

from medrecon.core.discover import classes
from medrecon.geometry import ImageGrid, ParallelGeometry
from medrecon.operators.algebra import Diagonal, Stack, whiten
from medrecon.operators.base import Adjoint, Composition, LinearOperator, Scaled, Sum
from medrecon.operators.check import adjoint_error, check_operator
from medrecon.operators.ct.operator import CTOperator
from medrecon.operators.mri.cartesian import CartesianMRI

pytestmark = pytest.mark.usefixtures("one_thread")
FOUND = classes("medrecon.operators", LinearOperator)
FLOAT32_ONLY = ("joseph", "astra", "cuda")
"""Backends of CTOperator that refuse float64."""


def examples(of: type[LinearOperator]) -> list[LinearOperator]:
    """The class's own examples; those here of the classes behind `A.H`, `@`, `+` and `*`, made of any operators."""
    projector = next(CTOperator.examples())
    cartesian, per_item = list(CartesianMRI.examples())[1:3]
    d = torch.arange(15.0).reshape(3, 5) - 4
    combined: dict[type[LinearOperator], list[LinearOperator]] = {
        Adjoint: [Diagonal(d).H, projector.H, per_item.H],
        Composition: [Diagonal(d + 4) @ Diagonal(torch.ones(3, 5) * -2), whiten(per_item, torch.rand(3, 1, 7, 10))],
        Scaled: [-2.5 * projector, (0.3 - 2j) * cartesian, (0.3 - 2j) * next(CartesianMRI.examples())],
        Sum: [Diagonal(d) + Diagonal(d.flip(0)), projector - 0.5 * projector, per_item + per_item.with_phase(None)],
    }
    return combined.get(of) or list(of.examples())


CASES = [pytest.param(a, id=f"{c.__name__}-{i}") for c in FOUND for i, a in enumerate(examples(c))]
every_case = pytest.mark.parametrize("A", CASES)
BATCH = 3  # an example may hold one setting per item of a batch of three


def gaussians(A: LinearOperator, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random x and y of batch three."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((BATCH, *A.in_shape), dtype=A.in_dtype, generator=g)
    return x, torch.randn((BATCH, *A.out_shape), dtype=A.out_dtype, generator=g)


@functools.cache
def dense(A: LinearOperator) -> Tensor:
    """(BATCH, outputs, inputs): the matrix for each item of a batch."""
    basis = torch.eye(torch.Size(A.in_shape).numel())
    columns = [A(e.reshape(A.in_shape).to(A.in_dtype).expand(BATCH, *A.in_shape)).reshape(BATCH, -1) for e in basis]
    return torch.stack(columns, dim=-1).to(torch.complex128 if A.out_dtype.is_complex else torch.float64)


def stacked(A: LinearOperator, matrix: Tensor) -> Tensor:
    """Of real images every complex sample is two real ones, (..., 2 m, n): only so A^H A is that of real x."""
    real = not A.in_dtype.is_complex and matrix.is_complex()
    return torch.cat([matrix.real, matrix.imag], dim=-2) if real else matrix


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def skip_float32_only(A: LinearOperator) -> None:
    if isinstance(A, CTOperator) and A.chosen(dtype=torch.float64) in FLOAT32_ONLY:
        with pytest.raises(TypeError, match=r"CTOperator.*float32.*float64"):
            A(torch.zeros(A.in_shape, dtype=torch.float64))
        with pytest.raises(TypeError, match=r"CTOperator.*float32.*float64"):
            A.adjoint(torch.zeros(A.out_shape, dtype=torch.float64))
        pytest.skip(f"backend {A.backend!r} refuses float64")


def test_finds_operators() -> None:
    names = {c.__name__ for c in FOUND}
    assert {"CTOperator", "Diagonal", "Adjoint", "Composition", "Stack"} <= names
    assert [c.__name__ for c in FOUND if not examples(c)] == []  # an operator without examples is not tested


@every_case
def test_laws(A: LinearOperator) -> None:
    errors = check_operator(A)
    assert errors["adjoint"] < 1e-6 and errors["gram"] < 5e-6 and max(errors.values()) < 2e-5


@every_case
def test_adjoint_in_double_precision(A: LinearOperator) -> None:
    skip_float32_only(A)
    assert adjoint_error(A, double=True) < 1e-12
    assert adjoint_error(Unmatched(A, 1 + 1e-9), double=True) > 1e-12


@every_case
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_inputs_are_only_read(A: LinearOperator) -> None:
    """From arrays that must not be written to, and lazily conjugated or negated: what a plain copy gives."""
    x, y = gaussians(A)
    for apply, data in (
        (A.forward, x),
        (A.adjoint, y),
        (A.gram, x),
        (lambda z: A.prox(z, y, 1.0, iterations=2), x),
        (lambda z: A.prox(x, z, 1.0, iterations=2), y),
    ):
        array = data.numpy().copy()
        array.flags.writeable = False
        assert torch.equal(apply(torch.from_numpy(array)), apply(data.clone()))
        assert (array == data.numpy()).all()
        lazy = data.conj() if data.is_complex() else torch.complex(data, -data).conj().imag
        assert lazy.is_conj() or lazy.is_neg()
        assert torch.equal(apply(lazy), apply(lazy.resolve_conj().resolve_neg().contiguous()))


@every_case
def test_second_derivative(A: LinearOperator) -> None:
    """The Hessian of |Ax|^2 / 2 along v is A^H A v: the backward has a backward of its own."""
    x, _ = gaussians(A)
    v, _ = gaussians(A, 1)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(A(x).abs().square().sum() / 2, x, create_graph=True)
    inner = gradient.conj() * v
    (along,) = torch.autograd.grad((inner.real if inner.is_complex() else inner).sum(), x)
    assert relative(along, A.gram(v)) < 2e-5


@every_case
def test_gradgradcheck(A: LinearOperator) -> None:
    skip_float32_only(A)
    x, _ = gaussians(A)
    wide = x.to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_(True)
    rounding = 1e-12  # two runs of FINUFFT differ by it: its threads add in the order in which they finish
    assert torch.autograd.gradcheck(A, (wide,), fast_mode=True, nondet_tol=rounding)
    assert torch.autograd.gradgradcheck(A, (wide,), fast_mode=True, nondet_tol=rounding)


@every_case
def test_forward_mode_derivative(A: LinearOperator) -> None:
    """The derivative of x -> A x along v is A v, and so on for the adjoint, in forward mode and over reverse mode."""
    (x, y), (v, w) = gaussians(A), gaussians(A, 1)
    for apply, at, along in ((A.forward, x, v), (A.adjoint, y, w), (A.gram, x, v)):
        value, derivative = torch.func.jvp(apply, (at,), (along,))
        assert torch.equal(value, apply(at)) and relative(derivative, apply(along)) < 1e-6
        with torch.autograd.forward_ad.dual_level():
            dual = apply(torch.autograd.forward_ad.make_dual(at, along))
            assert relative(torch.autograd.forward_ad.unpack_dual(dual).tangent, apply(along)) < 1e-6
    half_square = lambda u: A(u).abs().square().sum() / 2  # noqa: E731
    _, hessian = torch.func.jvp(torch.func.grad(half_square), (x,), (v,))
    assert relative(hessian, A.gram(v)) < 2e-5


@every_case
def test_vmap(A: LinearOperator) -> None:
    """torch.func.vmap gives what a batch gives: over the items, over batches of them, and of derivatives."""
    x, y = gaussians(A)
    for apply, data in ((A.forward, x), (A.adjoint, y), (A.gram, x)):
        assert relative(torch.func.vmap(apply)(data), apply(data)) < 1e-6
        batches = torch.stack([data, -2 * data.flip(0)], dim=1)
        expected = torch.stack([apply(batches[:, 0]), apply(batches[:, 1])], dim=1)
        assert relative(torch.func.vmap(apply, in_dims=1, out_dims=1)(batches), expected) < 1e-6
    if A.items == 1:
        half_square = lambda u: A(u).abs().square().sum() / 2  # noqa: E731
        assert relative(torch.func.vmap(torch.func.grad(half_square))(x), A.gram(x)) < 2e-5
        v, _ = gaussians(A, 1)
        along = torch.func.vmap(lambda u, t: torch.func.jvp(A, (u,), (t,))[1])(x, v)
        assert relative(along, A(v)) < 1e-6


@every_case
def test_calls_are_counted_once(A: LinearOperator) -> None:
    """A counts the images it was applied to, a Gram product as both passes, alone or within other operators."""
    x, y = gaussians(A)
    for apply, data, count in (
        (A.forward, x, (BATCH, 0)),
        (A.adjoint, y, (0, BATCH)),
        (A.gram, x, (BATCH, BATCH)),
        (Adjoint(A), y, (0, BATCH)),
        (whiten(A, torch.ones(A.out_shape)).gram, x, (BATCH, BATCH)),
        (torch.func.vmap(A), x, (BATCH, 0)),
    ):
        before = A.calls.images.copy()
        apply(data)
        assert A.calls.images - before == {k: n for k, n in zip(("forward", "adjoint"), count, strict=True) if n}
    assert not copy(A).calls.images


@every_case
def test_sampled_and_support_are_true(A: LinearOperator) -> None:
    """What A is said not to give is 0; what it is said not to see changes nothing."""
    x, y = gaussians(A)
    if A.sampled is not None:
        assert bool((A(x)[~A.sampled.expand_as(y)] == 0).all())
    if A.support is not None:
        assert bool((A.adjoint(y)[~A.support.expand_as(x)] == 0).all()) and torch.equal(A(x * A.support), A(x))


@every_case
def test_prox_is_the_dense_solution(A: LinearOperator) -> None:
    z, y = gaussians(A)
    matrix, data = stacked(A, dense(A)), stacked(A, y.reshape(BATCH, -1, 1))
    norm2 = float(torch.linalg.matrix_norm(matrix, 2).max()) ** 2
    weights = torch.tensor([0.05, 0.2, 1.0]) * norm2
    proximal = A.prox(z, y, weights, iterations=300, tolerance=1e-6)
    left = matrix.mH @ matrix + weights.double().reshape(-1, 1, 1) * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    right = matrix.mH @ data.to(matrix.dtype)
    right = right + weights.double().reshape(-1, 1, 1) * z.reshape(BATCH, -1, 1).to(matrix.dtype)
    exact = torch.cholesky_solve(right, torch.linalg.cholesky(left)).reshape(z.shape)
    assert relative(proximal.to(exact.dtype), exact) < 2e-5
    one = LinearOperator.prox(A, z, y, float(weights[0]), iterations=300, tolerance=1e-6)
    assert relative(A.prox(z, y, float(weights[0]), iterations=300, tolerance=1e-6), one) < 2e-5


def spectrum_errors(A: LinearOperator) -> tuple[float, float, float]:
    """How far A x is from d V^H x, x 0 where A sees nothing; V V^H and V^H V from the identity."""
    spectrum, (x, y) = A.spectrum, gaussians(A)
    assert spectrum is not None
    seen = x if A.support is None else x * A.support
    apart = (
        relative(spectrum.d * spectrum.components(seen), A(seen)),
        relative(spectrum.image(spectrum.components(x)), x),
    )
    return *apart, relative(spectrum.components(spectrum.image(y)), y)


@every_case
def test_a_spectrum_is_the_singular_value_decomposition(A: LinearOperator) -> None:
    if A.spectrum is None:
        pytest.skip("has none")
    assert max(spectrum_errors(A)) < 2e-6
    if A.support is None or bool(A.support.all()):
        found = A.spectrum.d.abs().expand(BATCH, *A.out_shape).reshape(BATCH, -1).double()
        values = torch.linalg.svdvals(dense(A))
        torch.testing.assert_close(found.sort(descending=True).values, values, rtol=1e-5, atol=1e-5)


def test_what_has_a_spectrum() -> None:
    has = {type(c.values[0]).__name__ for c in CASES if c.values[0].spectrum is not None}  # type: ignore[union-attr]
    assert has == {"CartesianMRI", "Diagonal", "Repeated", "Scaled"}
    several = [c.values[0] for c in CASES if isinstance(c.values[0], CartesianMRI) and c.values[0].coils > 1]
    assert several and all(A.spectrum is None for A in several)


@every_case
def test_norm_is_the_largest_singular_value(A: LinearOperator) -> None:
    largest = float(torch.linalg.matrix_norm(stacked(A, dense(A)), 2).max())
    assert 0.98 * largest < A.norm() < 1.0001 * largest


@every_case
def test_leading_axes_are_a_batch(A: LinearOperator) -> None:
    x, y = gaussians(A)
    assert torch.equal(A(x.reshape(1, BATCH, 1, *A.in_shape)).reshape(y.shape), A(x))
    assert torch.equal(A.adjoint(y.reshape(BATCH, 1, *A.out_shape)).reshape(x.shape), A.adjoint(y))
    assert relative(A.H(y), A.adjoint(y)) == 0
    strided = torch.stack([x, x], dim=-1)[..., 0]
    assert not strided.is_contiguous() and relative(A(strided), A(x)) < 1e-6


@every_case
def test_a_batch_has_the_bits_of_its_items(A: LinearOperator) -> None:
    """Whatever its size: of one, of a few, of more than any engine takes at once."""
    x, y = gaussians(A)
    for apply, data in ((A.forward, x), (A.adjoint, y), (A.gram, x)):
        if A.items == 1:
            alone = torch.cat([apply(item[None]) for item in data])
            assert torch.equal(apply(data[0]), alone[0])
            for times in (1, 2, 3, 14):
                batch = apply(data.repeat(times, *(1,) * (data.ndim - 1)))
                assert torch.equal(batch, alone.repeat(times, *(1,) * (batch.ndim - 1)))
        else:
            other = torch.cat([data[:1], 2 * data[1:].flip(0)])
            assert torch.equal(apply(other)[0], apply(data)[0])


@every_case
def test_an_empty_batch_gives_an_empty_batch(A: LinearOperator) -> None:
    x, y = gaussians(A)
    for apply, data, item in ((A.forward, x, A.out_shape), (A.adjoint, y, A.in_shape), (A.gram, x, A.in_shape)):
        nothing = data[:0].clone().requires_grad_(True)
        out = apply(nothing)
        assert out.shape == (0, *item) and out.dtype == apply(data).dtype
        assert apply(data.new_empty(2, 0, *data.shape[1:])).shape == (2, 0, *item)
        (gradient,) = torch.autograd.grad(out.abs().sum(), nothing)
        assert gradient.shape == nothing.shape and gradient.dtype == nothing.dtype
    assert A.prox(x[:0], y[:0], 1.0).shape == x[:0].shape
    assert A.prox(x[:0], y[:0], torch.ones(0)).shape == x[:0].shape


@every_case
def test_a_batch_of_other_than_its_items_is_refused(A: LinearOperator) -> None:
    if A.items == 1:
        pytest.skip("treats all items alike")
    x, y = gaussians(A)
    for apply, data in ((A.forward, x), (A.adjoint, y), (A.gram, x)):
        for batch in (data[:1], data[:2], torch.cat([data, data])):
            with pytest.raises(ValueError, match=f"{A.items}.*batch has {len(batch)}"):
                apply(batch)
    with pytest.raises(ValueError, match=rf"{A.items}.*(batch has 2|\(2,\))|\(2,\)"):
        A.prox(x[:2], y[:2], 1.0)


@every_case
def test_what_is_not_finite_stays_in_its_item_and_shows(A: LinearOperator) -> None:
    x, y = gaussians(A)
    for apply, data in ((A.forward, x), (A.adjoint, y), (A.gram, x)):
        for bad in (math.nan, math.inf):
            spoilt = data.clone()
            spoilt[1] = bad
            out = apply(spoilt)
            assert torch.equal(out[[0, 2]], apply(data)[[0, 2]])
            assert not bool(torch.isfinite(out[1]).all())


RECORDED = [c for c in CASES if str(c.id).endswith("-0") or (c.values[0].__class__ is CTOperator)]


@pytest.mark.parametrize("A", [c for c in RECORDED if getattr(c.values[0], "backend", "") != "torch"])
def test_a_recording_is_right_or_refused(A: LinearOperator) -> None:
    """`torch.func.linearize` and `make_fx` keep what torch computes; compiled loops, which they do not see, refuse.
    One case of each, and none of thousands of torch's own operations: recording takes its time."""
    x, _ = gaussians(A)
    try:
        replayed = torch.func.linearize(A, x)[1](2 * x)
    except RuntimeError as error:
        assert "linearize and make_fx cannot record" in str(error)  # noqa: PT017 - either is right
    else:
        assert relative(replayed, A(2 * x)) < 1e-6


@every_case
def test_errors_name_the_operator(A: LinearOperator) -> None:
    x, y = gaussians(A)
    name = type(A).__name__
    for call, good in ((A.forward, x), (A.adjoint, y), (A.gram, x)):
        with pytest.raises(ValueError, match=name):  # rank
            call(good[0].flatten()[0])
        with pytest.raises(ValueError, match=name):  # shape
            call(torch.cat([good, good], dim=-1))
        with pytest.raises(TypeError, match=name):  # dtype
            call(good.real if good.is_complex() else good.to(torch.complex64))
        with pytest.raises(TypeError, match=name):
            call(good.real.to(torch.int64))
        with pytest.raises(TypeError, match=name):
            call(good.numpy())
    with pytest.raises(ValueError, match=name):
        A.prox(x, torch.cat([y, y], dim=-1), 1.0)


def test_wrong_device_names_the_operator() -> None:
    with pytest.raises(ValueError, match=r"Diagonal.*cpu.*meta"):
        Diagonal(torch.ones(4))(torch.ones(2, 4, device="meta"))


ON_GPU = [
    c for c in CASES if str(c.id).split("-")[0] not in {"Adjoint", "Composition", "Diagonal", "Scaled", "Stack", "Sum"}
]
"""All but those of tensors or operators that must lie on the data's device already."""


def test_gpu_cases() -> None:
    names = {str(c.id).split("-")[0] for c in ON_GPU}
    assert names >= {
        "CTOperator",
        "CartesianMRI",
        "NUFFT",
        "NonCartesianMRI",
        "OffResonance",
        "RealImage",
        "SelfConsistency",
        "Series",
        "SimultaneousMultiSlice",
        "Toeplitz",
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("A", ON_GPU)
def test_laws_on_a_gpu(A: LinearOperator) -> None:
    check_operator(A, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("A", ON_GPU)
def test_a_gpu_gives_what_the_cpu_gives(A: LinearOperator) -> None:
    x, y = gaussians(A)
    for apply, data in ((A.forward, x), (A.adjoint, y), (A.gram, x)):
        result, expected = apply(data.cuda()), apply(data)
        assert result.is_cuda and result.dtype == expected.dtype
        assert relative(result.cpu(), expected) < 1e-5


class Broken(LinearOperator):
    """x -> d x with one law broken."""

    def __init__(self, law: str, dtype: torch.dtype = torch.complex64) -> None:
        self.law, self.diagonal = law, torch.tensor([1 + 2j, -2 + 1j, 3 - 1j, 0.5j])
        self.in_shape = self.out_shape = (4,)
        self.in_dtype = self.out_dtype = dtype

    def _forward(self, x: Tensor) -> Tensor:
        if self.law == "batch":
            return self.diagonal * (x + 0.1 * x.roll(1, 0))
        return self.diagonal * x + (1.0 if self.law == "linearity" else 0.0)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.law == "batch":
            return self.diagonal.conj() * y + 0.1 * (self.diagonal.conj() * y).roll(-1, 0)
        return (self.diagonal if self.law == "conjugate" else self.diagonal.conj()) * y

    def _gram(self, x: Tensor) -> Tensor:
        return super()._gram(x) * (1.001 if self.law == "gram" else 1.0)


class Unmatched(LinearOperator):
    """An operator with an adjoint that is 0.1 % too large, as unmatched backprojectors are and worse."""

    def __init__(self, operator: LinearOperator, factor: float = 1.001) -> None:
        self.operator, self.factor = operator, factor
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.in_dtype, self.out_dtype, self.items = operator.in_dtype, operator.out_dtype, operator.items

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator.forward_batch(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.operator.adjoint_batch(y)


def test_sound_operator_passes() -> None:
    check_operator(Broken("none"))


@pytest.mark.parametrize("law", ["conjugate", "linearity", "gram", "batch"])
def test_broken_operator_is_refused(law: str) -> None:
    with pytest.raises(ValueError, match="gram" if law == "gram" else "adjoint"):
        check_operator(Broken(law))


@every_case
def test_inexact_adjoint_is_refused(A: LinearOperator) -> None:
    assert adjoint_error(Unmatched(A)) > 1e-5
    with pytest.raises(ValueError, match="adjoint"):
        check_operator(Unmatched(A))


def test_subsets_count_by_their_share_of_the_views() -> None:
    A = CTOperator(ParallelGeometry((0.0, 0.5, 1.0, 2.0), 9, 1.0), ImageGrid((6, 6), (1.0, 1.0)))
    part = A.subset([3, 1])
    part(torch.ones(5, 6, 6))
    part.subset([0]).adjoint(torch.ones(4, 1, 9))
    A(torch.ones(6, 6))
    assert A.calls.images == {"forward": 3.5, "adjoint": 1} and part.calls.images == {"forward": 5, "adjoint": 2}
    with pytest.raises(ValueError, match=r"CTOperator.*views of 0 \.\.\. 3, got \[4\]"):
        A.subset([4])


def test_examples_are_not_needed() -> None:
    assert list(Broken.examples()) == []


def test_algebra_refuses_what_does_not_fit() -> None:
    A, B = Diagonal(torch.ones(3)), Diagonal(torch.ones(4))
    with pytest.raises(ValueError, match="cannot add"):
        A + B
    with pytest.raises(ValueError, match="does not fit below"):
        Stack([A, Diagonal(torch.ones(3, 4))])
    with pytest.raises(ValueError, match="at least one"):
        Stack([])
    with pytest.raises(TypeError, match="operators only"):
        A + 1  # type: ignore[operator]
    with pytest.raises(TypeError, match="call it"):
        torch.ones(3) * A
    with pytest.raises(ValueError, match="not 0"):
        0 * A
    with pytest.raises(TypeError, match="real"):
        1j * A
    with pytest.raises(ValueError, match="2 and 3 items"):
        Diagonal(torch.ones(2, 3), item_ndim=1) @ Diagonal(torch.ones(3, 3), item_ndim=1)


def test_composition_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="cannot compose"):
        Composition(Diagonal(torch.ones(3)), Diagonal(torch.ones(4)))
    with pytest.raises(TypeError, match="call it"):
        Diagonal(torch.ones(3)) @ torch.ones(3)  # type: ignore[operator]
