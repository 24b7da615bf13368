"""The root of a symmetric matrix times a vector, by the Lanczos process: Gaussian noise of a given covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.numerics.linalg import Apply, dot, expand


def root_times(matrix: Apply, v: Tensor, iterations: int) -> Tensor:
    """Return M^(1/2) v, about, for M symmetric positive semidefinite (Chow and Saad, SIAM J. Sci. Comput. 36 (2014)).

    On the Krylov space of v, M is a small matrix whose root is known. What an M that is only nearly so has beyond that,
    a skew part and negative eigenvalues, is left out.

    Args:
        matrix: x -> M x on tensors shaped like v.
        v: real (N, item), each item by itself.
        iterations: products with M; exact after as many as M has different eigenvalues.
    """
    ndim = v.ndim - 1
    basis, products, rest = [], [], v
    for _ in range(iterations):
        size = dot(rest, rest, ndim).sqrt()
        basis.append(rest / expand(size.clamp_min(1e-30), ndim))
        products.append(matrix(basis[-1]))
        rest = products[-1]
        for q in basis * 2:  # twice is enough
            rest = rest - expand(dot(q, rest, ndim), ndim) * q
        rest = torch.where(expand(dot(rest, rest, ndim) > 1e-10 * dot(products[-1], products[-1], ndim), ndim), rest, 0)
    q, mq = (torch.stack(vectors, 1).flatten(2).double() for vectors in (basis, products))
    small = q @ mq.mT
    values, vectors = torch.linalg.eigh((small + small.mT) / 2)
    root = (vectors * values.clamp_min(0).sqrt()[:, None]) @ vectors[:, 0, :, None]
    length = dot(v, v, ndim).sqrt().double()
    return (expand(length, 2) * (q.mT @ root)).reshape(v.shape).to(v.dtype)
