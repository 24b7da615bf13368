"""check_operator: the laws that every LinearOperator obeys, for users to run on theirs."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.numerics.linalg import dot
from medrecon.operators.base import LinearOperator


def adjoint_error(
    A: LinearOperator, batch: int = 3, seed: int = 0, device: str | torch.device = "cpu", double: bool = False
) -> float:
    """Measure |Re<Ax, y> - Re<x, A^H y>| / (|Ax| |y|), worst of a batch, for zero-mean Gaussian x and y.

    Zero-mean vectors matter: positive ones hide an inexact adjoint a thousandfold. `double` applies A in float64 and
    complex128, where an exact adjoint is good to about 1e-16.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, *A.in_shape), dtype=A.in_dtype, generator=g).to(device)
    y = torch.randn((batch, *A.out_shape), dtype=A.out_dtype, generator=g).to(device)
    if double:
        x, y = _double(x), _double(y)
    ax, ahy = _double(A(x)), _double(A.adjoint(y))
    x, y = _double(x), _double(y)
    n_out, n_in = len(A.out_shape), len(A.in_shape)
    scale = (dot(ax, ax, n_out) * dot(y, y, n_out)).sqrt().clamp_min(1e-300)
    return float(((dot(ax, y, n_out) - dot(x, ahy, n_in)).abs() / scale).max())


def check_operator(
    A: LinearOperator, *, tolerance: float = 1e-6, device: str | torch.device = "cpu"
) -> dict[str, float]:
    """Check the laws of a linear operator on random vectors, and return the error of each law.

    Laws: exact adjoint, item by item (a batch that mixes breaks it); linearity; gram = A^H A; gradient of
    |Ax - b|^2 / 2 is A^H (Ax - b); its derivative along v, in forward mode, A^H A v; `torch.func.vmap` over the items
    is a batch; a wrong shape is refused.

    Raises:
        ValueError: a law is broken: its name, the error and the tolerance.
    """
    g = torch.Generator().manual_seed(1)
    x = torch.randn((3, *A.in_shape), dtype=A.in_dtype, generator=g).to(device)
    b = torch.randn((3, *A.out_shape), dtype=A.out_dtype, generator=g).to(device)
    other = torch.randn((3, *A.in_shape), dtype=A.in_dtype, generator=g).to(device)
    ax = A(x)
    probe = x.clone().requires_grad_(True)
    misfit = lambda u: (A(u) - b).abs().square().sum() / 2  # noqa: E731
    gradient = torch.autograd.grad(misfit(probe), probe)[0]
    ahead = torch.func.jvp(A, (x,), (other,))
    curvature = torch.func.jvp(torch.func.grad(misfit), (x,), (other,))[1]
    errors = {
        "adjoint": adjoint_error(A, device=device),
        "linearity": _relative(A(2 * x - 3 * other), 2 * ax - 3 * A(other)),
        "gram": _relative(A.gram(x), A.adjoint(ax)),
        "gradient": _relative(gradient, A.adjoint(ax - b)),
        "jvp": max(_relative(ahead[0], ax), _relative(ahead[1], A(other))),
        "second derivative": _relative(curvature, A.gram(other)),
        "vmap": _relative(torch.func.vmap(A)(x), ax),
    }
    for law, error in errors.items():
        bound = tolerance if law == "adjoint" else 20 * tolerance
        if not error <= bound:
            raise ValueError(f"{A!r} breaks the law '{law}': error {error:.2e} > {bound:.1e}")
    try:
        A(torch.zeros((*A.in_shape[:-1], A.in_shape[-1] + 1), dtype=A.in_dtype, device=device))
    except ValueError:
        return errors
    raise ValueError(f"{A!r} accepts an input of the wrong shape")


def _relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b).clamp_min(1e-30))


def _double(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
