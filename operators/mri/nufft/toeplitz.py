"""The normal operator of a non-uniform Fourier transform as a circulant of twice the size: no sample is touched.

A^H W A is Toeplitz: it convolves with the point spread function (Fessler et al., IEEE TSP 53 (2005) 3393; Wajer &
Pruessmann, ISMRM 2001), whose spectrum on the doubled grid is real. The even and the odd frequencies of that grid are
those of the image's own grid and of one shifted by half a step: 2^d transforms of the image's size, which stay in the
cache, do the work of one of 2^d times the size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.nufft.engine import Backend, checked_trajectory, engine
from medrecon.operators.mri.nufft.gridding import fast_size


class Toeplitz(LinearOperator):
    """x (..., *shape) -> A^H W A x for A = NUFFT(trajectory, shape), exact to `eps`; odd sizes too.

    Args:
        trajectory: (S, d) cycles per field of view, as of `NUFFT`.
        shape: (H, W), or (D, H, W).
        weights: (S,) real, >= 0: W, such as the precision of each sample or density compensation; 1 by default.
        eps: relative error of the point spread function.

    Raises:
        ValueError: weights that are not one each sample, negative or not finite, or what `NUFFT` refuses.
    """

    in_dtype = out_dtype = torch.complex64

    def __init__(
        self,
        trajectory: Tensor,
        shape: tuple[int, ...],
        weights: Tensor | None = None,
        *,
        eps: float = 1e-9,
        backend: Backend = "auto",
    ) -> None:
        k = checked_trajectory(trajectory, shape)
        w = torch.ones(len(k)) if weights is None else weights
        if w.is_complex() or tuple(w.shape) != (len(k),) or not bool((torch.isfinite(w) & (w >= 0)).all()):
            raise ValueError(f"Toeplitz: weights are real (S,) = ({len(k)},), finite and >= 0, got {tuple(w.shape)}")
        self.in_shape = self.out_shape = tuple(shape)
        # Of the circulant's half: at least the image, and fast.
        self._size = tuple(fast_size(n) for n in shape)
        self._transfer = _transfer(k, w.detach().to("cpu", torch.complex128), self.in_shape, self._size, eps, backend)
        self._cache: dict[tuple[torch.dtype, torch.device], list[tuple[Tensor, Tensor]]] = {}

    def _forward(self, x: Tensor) -> Tensor:
        return self.sandwich(x, x.new_ones((1, 1) + (1,) * len(self.in_shape)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def sandwich(self, x: Tensor, maps: Tensor) -> Tensor:
        """Sum conj(map) T (map x) over coils: x (B, *shape), maps (1 or B, C, *shape)."""
        out = torch.zeros_like(x)
        step = 1 if x.device.type == "cpu" else maps.shape[1]
        for phase, transfer in self._parts(x):
            image, total = phase * x, torch.zeros_like(x)
            for some in maps.split(step, dim=1):
                total += (some.conj() * self._convolve(some * image[:, None], transfer)).sum(1)
            out += phase.conj() * total
        return out

    def _convolve(self, x: Tensor, transfer: Tensor) -> Tensor:
        axes = tuple(range(-len(self.in_shape), 0))
        padded = torch.fft.ifftn(torch.fft.fftn(x, s=self._size, dim=axes).mul_(transfer), dim=axes)
        return padded[(..., *(slice(n) for n in self.in_shape))]

    def _parts(self, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(phase (*shape), transfer (*size)) of the 2^d interleaved grids of frequencies."""
        key = (like.dtype, like.device)
        if key not in self._cache:
            self._cache[key] = [
                (phase.to(like), transfer.to(like.device, like.real.dtype)) for phase, transfer in self._interleaved()
            ]
        return self._cache[key]

    def _interleaved(self) -> Iterator[tuple[Tensor, Tensor]]:
        ndim = len(self.in_shape)
        for odd in itertools.product((0, 1), repeat=ndim):
            phi = torch.zeros(self.in_shape, dtype=torch.float64)
            for axis, (o, n, half) in enumerate(zip(odd, self.in_shape, self._size, strict=True)):
                ramp = -math.pi * o / half * torch.arange(n, dtype=torch.float64)
                phi = phi + ramp.view([-1 if a == axis else 1 for a in range(ndim)])
            part = self._transfer[tuple(slice(o, None, 2) for o in odd)]
            yield torch.polar(torch.ones_like(phi), phi), part / 2**ndim

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        g = torch.Generator().manual_seed(0)
        for shape in ((9, 7), (8, 11)):
            k = (torch.rand((60, 2), generator=g) - 0.5) * torch.tensor(shape)
            yield cls(k, shape, torch.rand(60, generator=g))


def _transfer(
    k: Tensor, weights: Tensor, shape: tuple[int, ...], half: tuple[int, ...], eps: float, backend: Backend
) -> Tensor:
    """Spectrum of the point spread function on the grid of twice `half`: real, float64."""
    double = tuple(2 * n for n in half)
    scale = torch.tensor([m / n for n, m in zip(shape, double, strict=True)], dtype=torch.float64)
    psf = engine(k * scale, double, eps, backend).adjoint(weights[None])[0]
    psf = psf * (math.sqrt(math.prod(double)) / math.prod(shape))
    # No two pixels are so far apart, and without their negatives the spectrum would not be real.
    for axis in range(len(shape)):
        psf.select(axis, 0).zero_()
    return torch.fft.fftn(torch.fft.ifftshift(psf)).real.contiguous()
