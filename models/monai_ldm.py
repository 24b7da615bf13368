"""MONAI's AutoencoderKL and DiffusionModelUNet behind medrecon's contracts.

The autoencoder maps images (B, H, W) in network range to latents (B, C, h, w) with zero mean and unit
variance per channel. The denoiser is a Wiener filter of the latents plus a learned correction.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class KLAutoencoder(nn.Module):
    """Kullback-Leibler autoencoder (arXiv 2112.10752), latents normalised per channel.

    Pixels are first folded `patch` x `patch` into channels: f = patch * 2^(levels-1), at half the cost of
    full-resolution convolutions.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, channels: tuple[int, ...], latent_channels: int, res_blocks: int, patch: int) -> None:
        super().__init__()
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        self.net = AutoencoderKL(
            spatial_dims=2, in_channels=patch**2, out_channels=patch**2, channels=channels,
            num_res_blocks=(res_blocks,) * len(channels), attention_levels=(False,) * len(channels),
            latent_channels=latent_channels, norm_num_groups=16,
            with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        )  # fmt: skip
        self.patch, self.factor = patch, patch * 2 ** (len(channels) - 1)
        self.latent_channels = latent_channels
        self.register_buffer("latent_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(latent_channels, 1, 1))

    def posterior(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | u), not normalised; u (B, H, W)."""
        mean, std = self.net.encode(nn.functional.pixel_unshuffle(u[:, None], self.patch))
        return mean, std

    def reconstruct(self, z: Tensor) -> Tensor:
        """Image (B, H, W) of a latent that is not normalised."""
        return nn.functional.pixel_shuffle(self.net.decode(z), self.patch)[:, 0]

    def encode(self, u: Tensor) -> Tensor:
        return (self.posterior(u)[0] - self.latent_mean) / self.latent_std

    def decode(self, z: Tensor) -> Tensor:
        return self.reconstruct(z * self.latent_std + self.latent_mean)


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


class WienerUNet(nn.Module):
    """D(z, sigma) = W_sigma z + e_sigma F(z, W_sigma z, position, sigma).

    W is the exact denoiser of the stationary Gaussian fitted to the training latents, e_sigma its analytic
    root-mean-square error: so the network F (unit-variance target) only learns what a Gaussian cannot know.
    This is the preconditioning of Karras et al. (arXiv 2206.00364, eq. 7) with the scalar c_skip replaced
    by the full Wiener filter.
    """

    spectrum: Tensor
    mean: Tensor

    def __init__(self, config: dict[str, Any], latent_channels: int, grid: int = 64) -> None:
        super().__init__()
        self.net = conv_net(config, 2 * latent_channels + 2, latent_channels)
        self.multiple = 2 ** (len(config["channels"]) - 1)
        self.sigma_min, self.sigma_max = float(config["sigma_min"]), float(config["sigma_max"])
        self.register_buffer("spectrum", torch.ones(latent_channels, grid, grid))
        self.register_buffer("mean", torch.zeros(latent_channels, 1, 1))

    def fit(self, latents: Tensor) -> None:
        """Mean per channel and power spectral density of latents (N, C, grid, grid)."""
        self.mean.copy_(latents.mean((0, 2, 3))[:, None, None])
        power = torch.fft.fft2(latents - self.mean, norm="ortho").abs().square().mean(0)
        self.spectrum.copy_(power.clamp_min(1e-6))

    def density(self, shape: tuple[int, int]) -> Tensor:
        """The spectral density on another latent grid, by bilinear interpolation in frequency."""
        if shape == tuple(self.spectrum.shape[-2:]):
            return self.spectrum
        power = torch.fft.fftshift(self.spectrum, dim=(-2, -1))
        power = torch.cat([power, power[..., :1, :]], -2)  # periodic, so +1/2 equals -1/2
        power = torch.cat([power, power[..., :, :1]], -1)
        rows, cols = (torch.fft.fftfreq(n, device=power.device) * 2 for n in shape)
        grid = torch.stack([cols.expand(shape), rows[:, None].expand(shape)], -1)[None]
        return nn.functional.grid_sample(power[None], grid.to(power), align_corners=True)[0]

    def wiener(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Wiener estimate of z (B, C, h, w) at sigma (B,), and its root-mean-square error (B, 1, 1, 1)."""
        h, w = z.shape[-2:]
        power = self.density((h, w))
        gain = power / (power + sigma.view(-1, 1, 1, 1).square())
        estimate = self.mean + torch.fft.ifft2(torch.fft.fft2(z - self.mean) * gain).real
        error = (power * (1 - gain)).mean((1, 2, 3), keepdim=True).sqrt()
        return estimate, error

    def correct(self, z: Tensor, sigma: Tensor, estimate: Tensor, error: Tensor, where: Tensor) -> Tensor:
        scale = (1 + sigma.square()).rsqrt().view(-1, 1, 1, 1)
        inputs = torch.cat([z * scale, estimate, where.expand(len(z), -1, -1, -1)], 1)
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
