"""The non-uniform Fourier transform: images to k-space samples at any trajectory, 2D and 3D."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.nufft.engine import Backend, checked_trajectory, chosen, engine, installed
from medrecon.operators.mri.nufft.toeplitz import Toeplitz


class NUFFT(LinearOperator):
    """y[s] = prod(N)^-1/2 sum_r x[r] exp(-2 pi i sum_a k[s, a] (r_a - N_a // 2) / N_a), x (..., *shape) -> y (..., S).

    Integer coordinates give the centred orthonormal FFT; coordinates and scaling are those of `sigpy.nufft`. The
    adjoint is exact to rounding, whatever eps is.

    Args:
        trajectory: (S, d), real, cycles per field of view, |k_a| <= N_a / 2, in the order of the image axes.
        shape: (H, W), or (D, H, W).
        eps: relative error of the transform. complex64 data stop at some 1e-6; complex128 at 1e-13.
        backend: "gridding" (2D: Kaiser-Bessel, compiled loops on the CPU and sparse matrices on a GPU), "finufft" (2D
            and 3D; runs on the CPU), or "auto": gridding in 2D, finufft in 3D.

    Raises:
        ValueError: a trajectory that is not (S, d), empty, NaN, or beyond N / 2.
        ImportError: finufft is needed and not installed.
    """

    in_dtype = out_dtype = torch.complex64

    def __init__(
        self, trajectory: Tensor, shape: tuple[int, ...], *, eps: float = 2e-6, backend: Backend = "auto"
    ) -> None:
        self.trajectory = checked_trajectory(trajectory, shape)
        self.eps = eps
        self.in_shape, self.out_shape = tuple(shape), (len(trajectory),)
        self._engine = engine(self.trajectory, self.in_shape, eps, backend)
        self.backend = chosen(backend, self.in_shape)

    def _forward(self, x: Tensor) -> Tensor:
        return self._engine.forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._engine.adjoint(y)

    def _gram(self, x: Tensor) -> Tensor:
        return self.toeplitz._forward(x)

    @functools.cached_property
    def toeplitz(self) -> Toeplitz:
        """Return A^H A by its point spread function: equal to adjoint(forward) to the accuracy eps."""
        eps = max(min(1e-9, self.eps), 1e-13)
        return Toeplitz(self.trajectory, self.in_shape, eps=eps, backend=self.backend)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        for shape in ((9, 7), (8, 11)):
            yield cls((torch.rand((60, 2), generator=g) - 0.5) * torch.tensor(shape), shape)
        if installed():
            yield cls((torch.rand((90, 3), generator=g) - 0.5) * torch.tensor([3, 5, 4]), (3, 5, 4))
