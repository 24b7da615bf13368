"""A real image behind a known phase: A @ RealImage(phase) is a phase-constrained measurement."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI


class RealImage(LinearOperator):
    """x -> exp(i phi) x from real (..., H, W) to complex images; the adjoint is Re(exp(-i phi) y).

    With phi known, k-space of a real image is conjugate symmetric, so that half of it would do (partial Fourier), and
    every reconstruction has half as many unknowns.

    Args:
        phase: unit-modulus exp(i phi), complex (H, W) for every image or (B, H, W), as `smooth_phase` gives it.

    Raises:
        ValueError: not complex, another rank, or not of modulus 1.
    """

    in_dtype = torch.float32
    out_dtype = torch.complex64

    def __init__(self, phase: Tensor) -> None:
        if not phase.is_complex() or phase.ndim not in (2, 3):
            raise ValueError(
                f"RealImage: the phase is exp(i phi), complex (H, W) or (B, H, W), got {phase.dtype} "
                f"{[*phase.shape]}; torch.polar(ones, phi) makes it from an angle"
            )
        if not bool(((phase.abs() - 1).abs() < 1e-4).all()):
            raise ValueError("RealImage: the phase is exp(i phi): its modulus is 1 everywhere")
        self.phase, self.items = phase, 1 if phase.ndim == 2 else len(phase)
        self.in_shape = self.out_shape = (phase.shape[-2], phase.shape[-1])

    def _forward(self, x: Tensor) -> Tensor:
        return self.phase.to(x.device) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self.phase.to(y.device).conj() * y).real

    def _gram(self, x: Tensor) -> Tensor:
        return x.clone()

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        for shape in ((5, 6), (3, 4, 7)):  # the second: one for each item of a batch of three
            angle = 6.28 * torch.rand(shape, generator=g, dtype=torch.float64)
            yield cls(torch.polar(torch.ones_like(angle), angle).to(torch.complex64))
        angle = torch.linspace(-2, 3, 12 * 9).reshape(12, 9)
        yield list(CartesianMRI.examples())[1] @ cls(torch.polar(torch.ones_like(angle), angle))
