"""Pixels as latents: an orthogonal autoencoder without weights, so that latent code does pixel-space diffusion."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.models.autoencoder import Autoencoder


class PixelConfig(BaseModel):
    """The pixels themselves in place of an autoencoder."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["pixels"] = "pixels"
    """no autoencoder, nothing to train"""
    factor: int = Field(4, gt=0, le=64)
    """pixels folded into channels, factor x factor"""

    def build(self) -> PixelSpace:
        return PixelSpace(self.factor)


class PixelSpace(nn.Module, Autoencoder):
    """An Autoencoder that folds factor x factor pixels into channels and loses nothing.

    Folding is a permutation, thus orthogonal, and all channels share one mean and one deviation s: white noise of level
    sigma on the latent is white noise of level s sigma on the pixels, as pixel-space diffusion has it.
    """

    orthogonal: ClassVar[bool] = True
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, factor: int = 4) -> None:
        super().__init__()
        self.factor, self.latent_channels, self.complex = factor, factor**2, False
        self.register_buffer("latent_mean", torch.zeros(1, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, 1, 1))

    def normalise(self, mean: Tensor, std: Tensor) -> None:
        """Take on the mean and the deviation of all channels together from those of each, (C, 1, 1)."""
        self.latent_mean.fill_(mean.mean())
        self.latent_std.fill_((std.square() + (mean - mean.mean()).square()).mean().sqrt())

    def posterior(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the folded pixels of u (B, H, W), not normalised, and their deviation 0."""
        z = nn.functional.pixel_unshuffle(u[:, None], self.factor)
        return z, torch.zeros_like(z)

    def reconstruct(self, z: Tensor) -> Tensor:
        """Return the image (B, H, W) of folded pixels that are not normalised."""
        return nn.functional.pixel_shuffle(z, self.factor)[:, 0]

    def encode(self, u: Tensor) -> Tensor:
        return (self.posterior(u)[0] - self.latent_mean) / self.latent_std

    def decode(self, z: Tensor) -> Tensor:
        return self.reconstruct(z * self.latent_std + self.latent_mean)
