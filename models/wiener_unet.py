"""Latent denoiser: the Wiener filter of the latents plus a learned correction by MONAI's DiffusionModelUNet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def conv_net(config: dict[str, Any], in_channels: int, out_channels: int) -> nn.Module:
    """MONAI DiffusionModelUNet without attention, so that it takes any latent size."""
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    channels = tuple(config["channels"])
    return DiffusionModelUNet(
        spatial_dims=2, in_channels=in_channels, out_channels=out_channels, channels=channels,
        num_res_blocks=config["res_blocks"], attention_levels=(False,) * len(channels), norm_num_groups=16,
    )  # fmt: skip


def positions(shape: tuple[int, int], like: Tensor) -> Tensor:
    """Pixel-centre coordinates in [-1, 1], (2, h, w): tell the network where in the body it is."""
    axes = [(torch.arange(n, device=like.device, dtype=like.dtype) * 2 + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class Wiener(nn.Module):
    """The exact denoiser of the stationary Gaussian fitted to latents, its channels correlated.

    Attributes:
        spectrum: cross-spectral density (2, C * C, grid, grid), real and imaginary part, of the unitary DFT.
        mean: (C, 1, 1).
    """

    spectrum: Tensor
    mean: Tensor

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        identity = torch.eye(channels).view(-1, 1, 1).expand(-1, grid, grid)
        self.register_buffer("spectrum", torch.stack([identity, torch.zeros_like(identity)]))
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self._eigen: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def fit(self, latents: Tensor) -> None:
        """Mean per channel and cross-spectral density of latents (N, C, grid, grid)."""
        self.mean.copy_(latents.mean((0, 2, 3))[:, None, None])
        density = torch.zeros_like(self.spectrum)
        for part in latents.split(64):
            f = torch.fft.fft2(part - self.mean, norm="ortho")
            product = torch.einsum("nahw,nbhw->abhw", f, f.conj())
            density += torch.stack([product.real, product.imag]).flatten(1, 2)
        self.spectrum.copy_(density / len(latents))

    def eigen(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Eigenvalues (h, w, C) and eigenvectors (h, w, C, C) on a latent grid, kept for the next call."""
        key = (shape, self.spectrum.device, self.spectrum._version)
        if key not in self._eigen:
            real, imaginary = self.density(shape).movedim(1, -1).unflatten(-1, 2 * (len(self.mean),))
            values, vectors = torch.linalg.eigh(torch.complex(real, imaginary))
            self._eigen = {key: (values.clamp_min(1e-8), vectors)}
        return self._eigen[key]

    def density(self, shape: tuple[int, int]) -> Tensor:
        """The cross-spectral density (2, C * C, h, w) on another grid, by bilinear interpolation in frequency."""
        if shape == tuple(self.spectrum.shape[-2:]):
            return self.spectrum
        power = torch.fft.fftshift(self.spectrum, dim=(-2, -1))
        power = torch.cat([power, power[..., :1, :]], -2)  # periodic, so +1/2 equals -1/2
        power = torch.cat([power, power[..., :, :1]], -1)
        rows, cols = (torch.fft.fftfreq(n, device=power.device) * 2 for n in shape)
        grid = torch.stack([cols.expand(shape), rows[:, None].expand(shape)], -1)[None]
        return nn.functional.grid_sample(power, grid.to(power).expand(2, -1, -1, -1), align_corners=True)

    def forward(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[z0 | z] for z (B, C, h, w) at sigma (B,), and its root-mean-square error (B, 1, 1, 1)."""
        values, vectors = self.eigen((z.shape[-2], z.shape[-1]))
        gain = values / (values + sigma.view(-1, 1, 1, 1).square())  # (B, h, w, C)
        f = torch.fft.fft2(z - self.mean).movedim(1, -1)[..., None]
        f = vectors @ (gain[..., None] * (vectors.mH @ f))
        error = (values * (1 - gain)).mean((1, 2, 3)).sqrt().view(-1, 1, 1, 1)
        return self.mean + torch.fft.ifft2(f[..., 0].movedim(-1, 1)).real, error


class WienerUNet(nn.Module):
    """D(z, sigma) = W_sigma z + e_sigma F(z - W_sigma z, W_sigma z, position, sigma).

    W is the exact denoiser of the stationary Gaussian fitted to the training latents, e_sigma its analytic
    root-mean-square error: so the network F (unit-variance target) only learns what a Gaussian cannot know.
    This is the preconditioning of Karras et al. (arXiv 2206.00364, eq. 7) with the scalar c_skip replaced
    by the full Wiener filter.
    """

    def __init__(self, config: dict[str, Any], latent_channels: int, grid: int = 64) -> None:
        super().__init__()
        self.net = conv_net(config, 2 * latent_channels + 2, latent_channels)
        self.wiener = Wiener(latent_channels, grid)
        self.multiple = 2 ** (len(config["channels"]) - 1)
        self.sigma_min, self.sigma_max = float(config["sigma_min"]), float(config["sigma_max"])

    def correct(self, z: Tensor, sigma: Tensor, estimate: Tensor, error: Tensor, where: Tensor) -> Tensor:
        # What the filter took away has variance sigma^2 - error^2; at unit scale bfloat16 keeps it.
        square = sigma.view(-1, 1, 1, 1).square()
        removed = (z - estimate) * torch.maximum(square - error.square(), 0.0025 * square).rsqrt()
        inputs = torch.cat([removed, estimate, where.expand(len(z), -1, -1, -1)], 1)
        # The embedding of MONAI's network is sinusoidal in a "timestep" of order 0..1000.
        level = (sigma.log() - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min) * 1000
        h, w = z.shape[-2:]
        padding = (0, -w % self.multiple, 0, -h % self.multiple)  # the U-Net halves its grid
        inputs = nn.functional.pad(inputs, padding, mode="replicate") if any(padding) else inputs
        return estimate + error * self.net(inputs, level)[..., :h, :w].to(z.dtype)

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """E[z0 | z0 + sigma n] for z (B, C, h, w), sigma a scalar or (B,)."""
        sigma = torch.as_tensor(sigma, dtype=z.dtype, device=z.device).expand(len(z))
        h, w = z.shape[-2:]
        estimate, error = self.wiener(z, sigma)
        return self.correct(z, sigma, estimate, error, positions((h, w), z))
