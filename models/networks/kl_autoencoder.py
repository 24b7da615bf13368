"""MONAI's AutoencoderKL around a linear lapped transform, behind medrecon's Autoencoder contract."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.models.autoencoder import Autoencoder
from medrecon.models.networks.layers import channels_last, in_cache


class KLConfig(BaseModel):
    """Architecture of the autoencoder."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["kl"] = "kl"
    """a trained autoencoder"""
    channels: tuple[Annotated[int, Field(gt=0, le=4096)], ...] = Field((64, 128), max_length=16)
    """feature channels a level"""
    patch: int = Field(2, gt=0, le=64)
    """pixels folded into channels first; the latent is patch * 2^(levels-1) times smaller than the image"""
    latent_channels: int = Field(4, gt=0, le=1024)
    """channels of the latent"""
    res_blocks: int = Field(1, gt=0, le=16)
    """residual blocks a level"""
    decoder_res_blocks: int | None = Field(None, gt=0, le=16)
    """residual blocks a level of the decoder; default: as many as the encoder's"""
    complex: bool = False
    """images are complex: real and imaginary part, one scale"""

    @property
    def factor(self) -> int:
        """Tell how many times smaller the latent is than the image."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def build(self) -> KLAutoencoder:
        return KLAutoencoder(
            self.channels, self.latent_channels, self.res_blocks, self.patch, self.decoder_res_blocks, self.complex
        )


class KLAutoencoder(nn.Module, Autoencoder):
    """Kullback-Leibler autoencoder (arXiv 2112.10752) around a linear one, latents normalised per channel.

    Encoder and decoder are a linear lapped block transform plus MONAI's network, as in residual autoencoding
    (arXiv 2410.10733): the network starts at the principal components and only learns what they cannot hold.
    Pixels are first folded `patch` x `patch` into channels: f = patch * 2^(levels-1), at half the cost of
    full-resolution convolutions.

    A complex one takes complex images: real and imaginary part are two planes of one scale, and its linear part
    commutes with a global phase (`block_components`).
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        channels: tuple[int, ...],
        latent_channels: int,
        res_blocks: int,
        patch: int,
        decoder_res_blocks: int | None = None,
        complex: bool = False,
    ) -> None:
        """`res_blocks` a level of encoder and decoder, unless the decoder has its own number."""
        super().__init__()
        from monai.networks.nets.autoencoderkl import AutoencoderKL, Decoder

        if complex and latent_channels % 2:
            raise ValueError(f"a complex autoencoder has an even number of latent channels, not {latent_channels}")
        parts = 1 + complex  # real, imaginary
        self.net = AutoencoderKL(
            spatial_dims=2,
            in_channels=parts * patch**2,
            out_channels=parts * patch**2,
            channels=channels,
            num_res_blocks=(res_blocks,) * len(channels),
            attention_levels=(False,) * len(channels),
            latent_channels=latent_channels,
            norm_num_groups=16,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        if decoder_res_blocks not in (None, res_blocks):
            self.net.decoder = Decoder(
                spatial_dims=2,
                channels=channels,
                in_channels=latent_channels,
                out_channels=parts * patch**2,
                num_res_blocks=(decoder_res_blocks,) * len(channels),
                norm_num_groups=16,
                norm_eps=1e-6,
                attention_levels=(False,) * len(channels),
                with_nonlocal_attn=False,
            )
        channels_last(self.net)
        self.patch, self.factor = patch, patch * 2 ** (len(channels) - 1)
        self.latent_channels, self.complex = latent_channels, complex
        self.analysis = nn.Conv2d(parts * self.factor**2, latent_channels, 3, padding=1, padding_mode="replicate")
        self.synthesis = nn.Conv2d(latent_channels, parts * self.factor**2, 3, padding=1, padding_mode="replicate")
        self.register_buffer("latent_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(latent_channels, 1, 1))

    @torch.no_grad()
    def fit(self, u: Tensor) -> None:
        """Start at the principal components of the f x f blocks of u (B, H, W), the network at zero."""
        basis, mean, scale = block_components(u, self.factor, self.latent_channels)
        for conv, weight, bias in (
            (self.analysis, basis.T / scale, -mean @ basis / scale),
            (self.synthesis, basis * scale, mean),
        ):
            centre = torch.zeros_like(conv.weight)
            centre[:, :, 1, 1] = weight
            conv.load_state_dict({"weight": centre, "bias": bias})
        # The heads of MONAI's network; a log variance of -10 is little noise.
        last = len(list(self.net.get_submodule("decoder.blocks").children())) - 1
        for name, level in (("quant_conv_mu", 0.0), ("quant_conv_log_sigma", -10.0), (f"decoder.blocks.{last}", 0.0)):
            for key, parameter in self.net.get_submodule(name).named_parameters():
                parameter.fill_(level if key.endswith("bias") else 0.0)

    def normalise(self, mean: Tensor, std: Tensor) -> None:
        """Take on the mean and deviation of every channel, (C, 1, 1)."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def posterior(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of q(z | u), not normalised; u (B, H, W)."""
        parts = planes(u)
        mean, std = self.net.encode(nn.functional.pixel_unshuffle(parts, self.patch))
        with torch.autocast(u.device.type, enabled=False):
            linear = self.analysis(nn.functional.pixel_unshuffle(parts, self.factor))
        return linear + mean, std

    def reconstruct(self, z: Tensor) -> Tensor:
        """Return the image (B, H, W) of a latent that is not normalised."""
        with torch.autocast(z.device.type, enabled=False):
            linear = nn.functional.pixel_shuffle(self.synthesis(z), self.factor)
        parts = linear + nn.functional.pixel_shuffle(self.net.decode(z), self.patch)
        return torch.complex(*parts.unbind(1)) if self.complex else parts[:, 0]

    def encode(self, u: Tensor) -> Tensor:
        return torch.cat([(self.posterior(v)[0] - self.latent_mean) / self.latent_std for v in in_cache(u)])

    encodings = 0

    def change(self, u: Tensor, v: Tensor) -> Tensor:
        """Return what the linear transform makes of v - u. Of the shipped priors the network's share of a small change
        is next to nothing, and no test knows others (docs/experiments/2026-11-30-faster-resample.md)."""
        first, second = (self.analysis(nn.functional.pixel_unshuffle(planes(w), self.factor)) for w in (u, v))
        return (second - first) / self.latent_std

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([self.reconstruct(v * self.latent_std + self.latent_mean) for v in in_cache(z)])


def planes(u: Tensor) -> Tensor:
    """Split complex images (B, H, W) into real and imaginary part, (B, 2, H, W); of real ones make (B, 1, H, W)."""
    return torch.view_as_real(u).movedim(-1, 1) if u.is_complex() else u[:, None]


def block_components(u: Tensor, factor: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return principal components of the factor x factor blocks of u (B, H, W): basis (f^2, count), mean (f^2,), scale.

    The components are turned by a cosine transform, whose first row is constant: so the channels have nearly one
    variance, `scale` squared, and white noise on the latent is nearly white noise on the image.

    Of complex u, basis (2 f^2, count) and mean (2 f^2,) are those of `planes`: the count / 2 complex components of
    circular blocks, of mean 0, the first half of the channels their real and the second their imaginary parts. So a
    global phase of the image is that phase of the latent, and the round trip commutes with it.
    """
    blocks = nn.functional.pixel_unshuffle(u[:, None], factor).movedim(1, -1).flatten(0, -2)
    blocks = blocks.to(torch.complex128 if u.is_complex() else torch.float64)
    mean = torch.zeros_like(blocks[0]) if u.is_complex() else blocks.mean(0)
    channels = count // 2 if u.is_complex() else count
    covariance = (blocks - mean).T @ (blocks - mean).conj() / len(blocks)
    components = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :channels]
    basis = components @ cosine_transform(channels).to(components)
    scale = ((blocks - mean) @ basis.conj()).std()
    if u.is_complex():
        top, below = torch.cat([basis.real, -basis.imag], 1), torch.cat([basis.imag, basis.real], 1)
        basis, mean, scale = torch.cat([top, below]), torch.cat([mean.real, mean.imag]), scale / math.sqrt(2)
    return basis.float(), mean.float(), scale.float()


def cosine_transform(count: int) -> Tensor:
    """Return the orthonormal DCT-II (count, count), float64."""
    k, j = torch.arange(count, dtype=torch.float64)[:, None], torch.arange(count, dtype=torch.float64)
    cosine = torch.cos(math.pi * (2 * j + 1) * k / (2 * count)) * math.sqrt(2 / count)
    cosine[0] /= math.sqrt(2)
    return cosine
