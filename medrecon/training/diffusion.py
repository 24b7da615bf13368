"""Training of the latent denoiser on crops of latents, measured against the Gaussian of the same latents."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.models.kl_autoencoder import KLAutoencoder
from medrecon.models.values import ValueMap
from medrecon.models.wiener_unet import WienerUNet, positions
from medrecon.training.slices import Slices, crops


class DiffusionConfig(BaseModel):
    """Architecture and noise range of the latent denoiser."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    channels: tuple[int, ...] = (64, 128, 128)
    """feature channels a level of the U-Net"""
    res_blocks: int = Field(1, gt=0)
    """residual blocks a level"""
    sigma_min: float = Field(0.01, gt=0)
    """smallest noise, in units of the latent standard deviation"""
    sigma_max: float = Field(80.0, gt=0)
    """largest noise"""
    low_noise: float = Field(1.5, gt=0)
    """training levels are uniform in (log sigma)^(1/low_noise): above 1, low noise is trained more often"""
    crop: int = Field(32, gt=0, multiple_of=4)
    """side of the training crops of the latent; the network knows the position of the crop (PaDIS, arXiv 2406.02462)"""
    batch: int = Field(16, gt=0)
    """crops a step"""
    views: int = Field(3, gt=0)
    """augmented copies of every slice that are encoded once, before training"""
    scale_jitter: float = Field(0.0, ge=0, lt=1)
    """random intensity scaling by 1 +- this (MRI: units are arbitrary)"""


LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Noise levels of the validation."""


@torch.no_grad()
def encode_slices(autoencoder: KLAutoencoder, values: ValueMap, x: Tensor, device: str, bf16: bool) -> Tensor:
    """Latents (N, C, h, w), not normalised, of slices (N, H, W) in physical values."""
    latents = []
    for part in x.split(8):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            latents.append(autoencoder.posterior(values.forward(part.to(device)))[0].float())
    return torch.cat(latents)


def training_latents(
    autoencoder: KLAutoencoder, values: ValueMap, slices: Slices, config: DiffusionConfig,
    generator: torch.Generator, device: str, bf16: bool,
) -> Tensor:  # fmt: skip
    """Latents of every slice (weighted by subject) under random flips, turns, zooms and scales."""
    size, latents = slices.data.shape[-1], []
    for _ in range(math.ceil(config.views * len(slices.subjects) / 16)):
        x = crops(slices, size, 16, generator)
        if config.scale_jitter:
            x = x * (1 + (torch.rand(16, 1, 1, generator=generator) * 2 - 1) * config.scale_jitter)
        latents.append(encode_slices(autoencoder, values, x, device, bf16))
    return torch.cat(latents)


class DiffusionTask:
    """Loss and validation of one denoiser; latents are normalised, (N, C, h, w)."""

    def __init__(self, config: DiffusionConfig, latents: Tensor, held_out: Tensor, bf16: bool) -> None:
        self.config, self.latents, self.held_out, self.bf16 = config, latents, held_out, bf16

    def sigmas(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels between sigma_min and sigma_max, stratified over the batch."""
        low, high = math.log(self.config.sigma_min), math.log(self.config.sigma_max)
        place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        return (low + (high - low) * place**self.config.low_noise).exp().to(self.latents.device)

    def loss(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Squared error of the correction, in units of the Wiener filter's own error: 1 is the Gaussian's level."""
        assert isinstance(module, WienerUNet)
        device, batch, side = self.latents.device, self.config.batch, self.config.crop
        z0 = self.latents[torch.randint(len(self.latents), (batch,), generator=generator)]
        sigma = self.sigmas(batch, generator)
        z = z0 + sigma.view(-1, 1, 1, 1) * torch.randn(z0.shape, generator=generator).to(device)
        estimate, error = module.wiener(z, sigma)
        h, w = z.shape[-2:]
        where = positions((h, w), z)
        top = int(torch.randint(max(1, h - side + 1), (1,), generator=generator))
        left = int(torch.randint(max(1, w - side + 1), (1,), generator=generator))
        window = (..., slice(top, top + side), slice(left, left + side))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            out = module.correct(z[window], sigma, estimate[window], error, where[window])
        return ((out - z0[window]) / error).square().mean()

    @torch.no_grad()
    def errors(self, module: nn.Module) -> dict[float, tuple[float, float]]:
        """Per noise level: mean squared error of the network and of the stationary Gaussian, on held-out latents."""
        assert isinstance(module, WienerUNet)
        module.eval()
        g = torch.Generator().manual_seed(0)
        table = {}
        for level in LEVELS:
            ours, gauss, count = 0.0, 0.0, 0
            for z0 in self.held_out.split(8):
                sigma = torch.full((len(z0),), level, device=z0.device)
                z = z0 + level * torch.randn(z0.shape, generator=g).to(z0.device)
                with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
                    ours += float((module(z, sigma) - z0).square().sum())
                gauss += float((module.wiener(z, sigma)[0] - z0).square().sum())
                count += z0.numel()
            table[level] = (ours / count, gauss / count)
        module.train()
        return table

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Ratio of the network's error to the Gaussian's per level; below 1 everywhere is the bar."""
        return {f"ratio_{level:g}": ours / gauss for level, (ours, gauss) in self.errors(module).items()}
