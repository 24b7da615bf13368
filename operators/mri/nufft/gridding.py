"""Kaiser-Bessel gridding in 2D: the non-uniform Fourier transform as scaling, oversampled FFT and interpolation.

Kernel and scaling of Beatty, Nishimura & Pauly, IEEE TMI 24 (2005) 799, eq. 3-5, as in Fessler & Sutton 2003; the same
as SigPy's for the same width and oversampling.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.operators.mri.nufft.interpolation import Interpolation

_GPU_POINTS = 2**26


def kernel_width(eps: float) -> tuple[int, float]:
    """Return (width, oversampling) for a relative error below `eps`, from errors measured on random samples.

    The error falls sixfold with every grid point of width at oversampling 1.5, nearly tenfold at 2.
    """
    if not 1e-13 <= eps < 1:
        raise ValueError(f"NUFFT: eps is a relative error between 1e-13 and 1, got {eps}")
    if eps >= 1e-8:
        return max(2, math.ceil((0.55 - math.log10(eps)) / 0.8)), 1.5
    return math.ceil((0.75 - math.log10(eps)) / 0.98), 2.0


@dataclass(frozen=True, eq=False)
class Gridding:
    """A plan: y[s] = (H W)^-1/2 sum_r x[r] exp(-2 pi i k_s (r - centre) / N), images (n, H, W), samples (n, S).

    Adjoint and forward share one set of weights: they are an exact pair whatever their accuracy.

    Attributes:
        trajectory: (S, 2) float64 on the CPU, cycles per field of view, row axis first.
        shape: (H, W).
        width: grid points the kernel covers along an axis, at most 16.
        oversampling: of the grid, over 1.
    """

    trajectory: Tensor
    shape: tuple[int, int]
    width: int
    oversampling: float

    def forward(self, x: Tensor) -> Tensor:
        """Transform images (n, H, W) to samples (n, S), complex64 or complex128, on the device of x."""
        return torch.cat([self._interpolation.to_samples(self._grid(part)) for part in x.split(self._step(x))])

    def adjoint(self, y: Tensor) -> Tensor:
        """Transform samples (n, S) to images (n, H, W)."""
        return torch.cat([self._image(self._interpolation.to_grid(part)) for part in y.split(self._step(y))])

    def _step(self, like: Tensor) -> int:
        """Images at once: on a CPU the few that a loop takes, on a GPU 2 GB of grid and its copies."""
        return 8 if like.device.type == "cpu" else max(1, _GPU_POINTS // math.prod(self.grid_shape))

    @functools.cached_property
    def _interpolation(self) -> Interpolation:
        ratio = torch.tensor([g / n for n, g in zip(self.shape, self.grid_shape, strict=True)], dtype=torch.float64)
        beta = (self._beta(self.shape[0], self.grid_shape[0]), self._beta(self.shape[1], self.grid_shape[1]))
        return Interpolation(self.trajectory * ratio, self.grid_shape, self.width, beta)

    @functools.cached_property
    def grid_shape(self) -> tuple[int, int]:
        height, width = (fast_size(math.ceil(self.oversampling * n)) for n in self.shape)
        return height, width

    def _grid(self, x: Tensor) -> Tensor:
        """Spectrum (n, G_0, G_1) of the scaled, zero-padded images; the image centre lies at index 0."""
        scaled = x * self._scaling.to(x.device, x.real.dtype)
        grid = x.new_zeros(len(x), *self.grid_shape)
        for image, wrapped in self._quadrants:
            grid[:, wrapped[0], wrapped[1]] = scaled[:, image[0], image[1]]
        spectrum: Tensor = torch.fft.fft2(grid)
        return spectrum

    def _image(self, spectrum: Tensor) -> Tensor:
        """The transpose of `_grid`."""
        grid = torch.fft.ifft2(spectrum, norm="forward")
        x = spectrum.new_empty(len(spectrum), *self.shape)
        for image, wrapped in self._quadrants:
            x[:, image[0], image[1]] = grid[:, wrapped[0], wrapped[1]]
        return x * self._scaling.to(x.device, x.real.dtype)

    @functools.cached_property
    def _quadrants(self) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """Parts of the image, and where they lie on the grid when its centre is at index 0."""
        halves = [
            ((slice(n // 2, n), slice(0, n - n // 2)), (slice(0, n // 2), slice(g - n // 2, g)))
            for n, g in zip(self.shape, self.grid_shape, strict=True)
        ]
        return [((a[0], b[0]), (a[1], b[1])) for a in halves[0] for b in halves[1]]

    @functools.cached_property
    def _scaling(self) -> Tensor:
        """(H, W): 1 / Fourier transform of the kernel, and (H W)^-1/2."""
        axes = []
        for n, g in zip(self.shape, self.grid_shape, strict=True):
            place = torch.arange(n, dtype=torch.float64) - n // 2
            root = torch.sqrt(self._beta(n, g) ** 2 - (math.pi * self.width * place / g) ** 2)
            axes.append(root / torch.sinh(root) / (self.width * math.sqrt(n)))
        return axes[0][:, None] * axes[1]

    def _beta(self, n: int, g: int) -> float:
        """Shape of the kernel for n pixels on a grid of g: Beatty 2005, eq. 5."""
        ratio = g / n
        return math.pi * math.sqrt((self.width / ratio * (ratio - 0.5)) ** 2 - 0.8)


def fast_size(n: int) -> int:
    """Return the smallest even number >= n without prime factors over 5: the FFT is fast there."""
    size = n + n % 2
    while not _smooth(size):
        size += 2
    return size


def _smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1
