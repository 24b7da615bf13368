"""How structured artefacts lie in the data: y = A x + C h + n. Each C here has a diagonal C^H W C for the precisions W
that it is used with, so that h given x is known entry by entry."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.numerics.fourier import centred_fft, centred_ifft
from medrecon.operators.base import LinearOperator


class Offsets(LinearOperator):
    """h (D,) -> the sinogram (V, D) of a detector whose elements add h_j to every view: rings in the image.

    Raises:
        ValueError: no view or no element.
    """

    def __init__(self, views: int, elements: int, dtype: torch.dtype = torch.float32) -> None:
        if views < 1 or elements < 1:
            raise ValueError(f"Offsets: needs at least one view and one element, got {views} and {elements}")
        self.in_shape, self.out_shape, self.in_dtype, self.out_dtype = (elements,), (views, elements), dtype, dtype

    def _forward(self, x: Tensor) -> Tensor:
        return x[:, None].expand(-1, *self.out_shape).clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.sum(1)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls(5, 7)


class Tones(LinearOperator):
    """h (C, H, W) -> k-space (C, H, W): in every readout a sum of tones, one a position along the readout axis.

    An interference of one frequency is one position of h in all lines: a zipper across the image. Orthonormal.

    Raises:
        ValueError: no shape (C, H, W), or an axis that is not one of the last two.
    """

    in_dtype = out_dtype = torch.complex64

    def __init__(self, shape: tuple[int, int, int], readout: int) -> None:
        if len(shape) != 3 or readout not in (-2, -1):
            raise ValueError(f"Tones: expected a shape (C, H, W) and readout -2 or -1, got {shape} and {readout}")
        self.in_shape = self.out_shape = tuple(shape)
        self.readout = readout

    def _forward(self, x: Tensor) -> Tensor:
        return centred_fft(x, self.readout)

    def _adjoint(self, y: Tensor) -> Tensor:
        return centred_ifft(y, self.readout)

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield cls((2, 5, 6), -2)
        yield cls((1, 3, 7), -1)


class WhiteningOf(LinearOperator):
    """(1 + C' S C'^H)^(-1/2) W^(1/2), C' = W^(1/2) C: whitens C h + n, h ~ N(0, S), n ~ N(0, W^-1), S diagonal.

    Exact where g = diag(C^H W C) is all of C^H W C: (1 + C' S C'^H)^(-1/2) = 1 - C' (1 - (1 + S g)^(-1/2)) / g C'^H.

    Args:
        C: from h to the data.
        precision: W, real, (B or 1, *C.out_shape).
        variance: S, real, (B or 1, *C.in_shape).
        information: g, real, (B or 1, *C.in_shape).
    """

    def __init__(self, C: LinearOperator, precision: Tensor, variance: Tensor, information: Tensor) -> None:
        self.C, self.root = C, precision.sqrt().expand(-1, *C.out_shape)
        excess, least = 1 + variance * information, torch.finfo(information.dtype).tiny
        g = information.clamp_min(least)
        self._once = torch.where(information > 0, (1 - excess**-0.5) / g, 0)
        self._twice = torch.where(information > 0, (1 - 1 / excess) / g, 0)
        self.in_shape = self.out_shape = C.out_shape
        self.in_dtype = self.out_dtype = C.out_dtype
        self.items = max(len(self.root), len(self._once))

    def _apply(self, u: Tensor, share: Tensor) -> Tensor:
        return u - self.root * self.C.forward_batch(share * self.C.adjoint_batch(self.root * u))

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(self.root * x, self._once)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.root * self._apply(y, self._once)

    def _gram(self, x: Tensor) -> Tensor:
        return self.root * self._apply(self.root * x, self._twice)

    @property
    def sampled(self) -> Tensor:
        return self.root > 0

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        W = torch.rand((1, 5, 7), generator=g)
        yield cls(Offsets(5, 7), W, torch.rand((1, 7), generator=g), W.sum(1))
        lines = torch.rand((3, 1, 1, 6), generator=g).expand(3, 2, 5, 6)
        yield cls(Tones((2, 5, 6), -2), lines, torch.rand((3, 2, 5, 6), generator=g), lines)
