"""The exact denoiser of a stationary Gaussian: the Wiener filter of latents with correlated channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Wiener(nn.Module):
    """The exact denoiser of the stationary Gaussian fitted to latents, its channels correlated.

    Attributes:
        spectrum: cross-spectral density of the unitary DFT, real and imaginary part, of every pair of channels once and
            of half the frequencies, as the latents are real: (2, C (C + 1) / 2, grid, grid // 2 + 1).
        mean: (C, 1, 1).
    """

    spectrum: Tensor
    mean: Tensor

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.channels, self.grid = channels, grid
        self.pairs = tuple(torch.triu_indices(channels, channels))
        same = (self.pairs[0] == self.pairs[1]).float().view(-1, 1, 1).expand(-1, grid, grid // 2 + 1)
        self.register_buffer("spectrum", torch.stack([same, torch.zeros_like(same)]))
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self._eigen: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def fit(self, latents: Tensor) -> None:
        """Fit the mean per channel and the cross-spectral density to square latents (N, C, n, n) of any grid."""
        first, second = self.pairs
        if latents.shape[-1] != self.grid:
            own = Wiener(self.channels, latents.shape[-1])
            own.fit(latents)
            density = own.density((self.grid, self.grid)).unflatten(1, (self.channels, self.channels))
            self.spectrum.copy_(density[:, first, second, :, : self.grid // 2 + 1])
            self.mean.copy_(own.mean)
            return
        self.mean.copy_(latents.mean((0, 2, 3))[:, None, None])
        density = torch.zeros_like(self.spectrum)
        for part in latents.split(64):
            f = torch.fft.rfft2(part - self.mean, norm="ortho")
            product = (f[:, first] * f[:, second].conj()).sum(0)
            density += torch.stack([product.real, product.imag])
        self.spectrum.copy_(density / len(latents))

    def whole(self) -> Tensor:
        """Return the spectrum of all pairs of channels and all frequencies, Hermitian: (2, C * C, grid, grid)."""
        half = torch.complex(*self.spectrum)
        first, second = self.pairs
        matrix = half.new_zeros((self.channels, self.channels, *half.shape[-2:]))
        matrix[second, first] = half.conj()
        matrix[first, second] = half
        mirrored = matrix[..., 1 : self.grid - self.grid // 2].flip(-2, -1).roll(1, -2).conj()
        full = torch.cat([matrix, mirrored], -1).flatten(0, 1)
        return torch.stack([full.real, full.imag])

    def eigen(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return eigenvalues (h, w, C) and eigenvectors (h, w, C, C) on a latent grid, kept for the next call."""
        key = (shape, self.spectrum.device, self.spectrum._version)
        if key not in self._eigen:
            real, imaginary = self.density(shape).movedim(1, -1).unflatten(-1, 2 * (len(self.mean),))
            values, vectors = torch.linalg.eigh(torch.complex(real, imaginary))
            self._eigen = {key: (values.clamp_min(1e-8), vectors)}
        return self._eigen[key]

    def density(self, shape: tuple[int, int]) -> Tensor:
        """Interpolate the cross-spectral density to another grid, bilinearly in frequency: (2, C * C, h, w)."""
        if shape == (self.grid, self.grid):
            return self.whole()
        power = torch.fft.fftshift(self.whole(), dim=(-2, -1))
        power = torch.cat([power, power[..., :1, :]], -2)  # periodic, so +1/2 equals -1/2
        power = torch.cat([power, power[..., :, :1]], -1)
        rows, cols = (torch.fft.fftfreq(n, device=power.device) * 2 for n in shape)
        grid = torch.stack([cols.expand(shape), rows[:, None].expand(shape)], -1)[None]
        return nn.functional.grid_sample(power, grid.to(power).expand(2, -1, -1, -1), align_corners=True)

    def forward(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[z0 | z] for z (B, C, h, w) at sigma (B,), and its root-mean-square error (B, 1, 1, 1)."""
        values, vectors = self.eigen((z.shape[-2], z.shape[-1]))
        gain = values / (values + sigma.view(-1, 1, 1, 1).square())  # (B, h, w, C)
        f = torch.fft.fft2(z - self.mean).movedim(1, -1)[..., None]
        f = vectors @ (gain[..., None] * (vectors.mH @ f))
        error = (values * (1 - gain)).mean((1, 2, 3)).sqrt().view(-1, 1, 1, 1)
        return self.mean + torch.fft.ifft2(f[..., 0].movedim(-1, 1)).real, error
