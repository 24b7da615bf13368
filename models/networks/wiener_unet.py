"""Latent denoiser: the Wiener filter of the latents plus corrections by U-Nets, one for each range of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.models.denoiser import Conditional, Guidable
from medrecon.models.exact.wiener import Wiener
from medrecon.models.networks.layers import channels_last, in_cache

Parametrisation = Literal["wiener", "v", "epsilon", "x0"]


class ExpertConfig(BaseModel):
    """One U-Net of the denoiser and the noise it is for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    up_to: float = Field(80.0, gt=0)
    """largest noise it denoises; the next expert takes over"""
    fold: int = Field(1, gt=0, le=64)
    """latent pixels folded into channels, fold x fold: 2 or 4 sees a body at a quarter or less of the cost"""
    channels: tuple[Annotated[int, Field(gt=0, le=4096)], ...] = Field((64, 128, 128), max_length=16)
    """feature channels a level of the U-Net, multiples of 16"""
    res_blocks: int = Field(1, gt=0, le=16)
    """residual blocks a level"""
    attention: int = Field(0, ge=0)
    """how many levels, from the coarsest, have self-attention"""
    parametrisation: Parametrisation = "wiener"
    """what the network's output means: see `skip_and_scale`"""


def skip_and_scale(
    kind: Parametrisation, z: Tensor, sigma: Tensor, estimate: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """Return skip and scale of D = skip + scale * F, F a network of unit variance; sigma (B, 1, 1, 1).

    wiener: the Wiener filter and its error, so that F only learns what a Gaussian cannot know. v: the scalar Wiener
    filter of white latents of unit variance (arXiv 2206.00364, eq. 7; v-prediction up to sign, arXiv 2202.00512).
    epsilon: F is the noise, up to sign. x0: F is the latent.
    """
    if kind == "wiener":
        return estimate, error
    if kind == "v":
        return z / (1 + sigma.square()), sigma * (1 + sigma.square()).rsqrt()
    return (z, sigma) if kind == "epsilon" else (torch.zeros_like(z), torch.ones_like(sigma))


def positions(shape: tuple[int, int], like: Tensor) -> Tensor:
    """Return pixel-centre coordinates in [-1, 1], (2, h, w): tell the network where in the body it is."""
    axes = [(torch.arange(n, device=like.device, dtype=like.dtype) * 2 + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class Expert(nn.Module):
    """MONAI's DiffusionModelUNet on latents folded `fold` x `fold` into channels, with what the Wiener filter found.

    With `classes` it can be told of which class an image is, 1 .. classes, or that it is unknown, 0.
    """

    def __init__(self, config: ExpertConfig, latent_channels: int, classes: int = 0) -> None:
        super().__init__()
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        folded, levels = latent_channels * config.fold**2, len(config.channels)
        self.config, self.classes = config, classes
        self.net = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=2 * folded + 2,
            out_channels=folded,
            channels=config.channels,
            num_res_blocks=config.res_blocks,
            norm_num_groups=16,
            attention_levels=tuple(levels - i <= config.attention for i in range(levels)),
            num_class_embeds=classes + 1 if classes else None,
        )
        channels_last(self.net)
        self.multiple = config.fold * 2 ** (levels - 1)

    def forward(
        self, removed: Tensor, estimate: Tensor, where: Tensor, level: Tensor, label: Tensor | int = 0
    ) -> Tensor:
        """Return F (B, C, h, w) from (B, C, h, w) twice.

        where: positions (2, h, w); level: a "timestep" of order 0..1000 (B,); label: the class, one or (B,).
        """
        h, w = removed.shape[-2:]
        padding = (0, -w % self.multiple, 0, -h % self.multiple)  # the U-Net halves its grid
        pad = lambda t: nn.functional.pad(t, padding, mode="replicate") if any(padding) else t  # noqa: E731
        fold = lambda t: nn.functional.pixel_unshuffle(pad(t), self.config.fold)  # noqa: E731
        place = nn.functional.avg_pool2d(pad(where[None]), self.config.fold).expand(len(removed), -1, -1, -1)
        told = torch.as_tensor(label, device=level.device).expand(len(level)) if self.classes else None
        out = self.net(torch.cat([fold(removed), fold(estimate), place], 1), level, class_labels=told)
        return nn.functional.pixel_shuffle(out, self.config.fold)[..., :h, :w]


class WienerUNet(nn.Module, Conditional, Guidable):
    """D(z, sigma) = W_sigma z + e_sigma F(z - W_sigma z, W_sigma z, position, sigma).

    W is the exact denoiser of the stationary Gaussian fitted to the training latents, e_sigma its analytic
    root-mean-square error: so the network F (unit-variance target) only learns what a Gaussian cannot know.
    This is the preconditioning of Karras et al. (arXiv 2206.00364, eq. 7) with the scalar c_skip replaced
    by the full Wiener filter. Each range of noise has a network of its own (arXiv 2211.01324): what decides the
    layout of a body at high noise, and its texture at low noise, have little in common.

    With `labels`, the names of the classes it was trained with, `conditioned` gives the denoiser of one of them.
    """

    def __init__(
        self,
        experts: Mapping[str, ExpertConfig],
        sigma_min: float,
        latent_channels: int,
        grid: int,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__()
        bounds = [e.up_to for e in experts.values()]
        if not bounds or any(a >= b for a, b in pairwise([sigma_min, *bounds])):
            raise ValueError(f"the experts' up_to must rise, and begin above sigma_min {sigma_min:g}: {bounds}")
        self.experts = nn.ModuleDict({name: Expert(e, latent_channels, len(labels)) for name, e in experts.items()})
        self.wiener = Wiener(latent_channels, grid)
        self.sigma_min, self.sigma_max = sigma_min, bounds[-1]
        self.labels, self.label, self.guidance = tuple(labels), 0, 1.0

    def conditioned(self, label: str) -> WienerUNet:
        """Return the denoiser of one class of images, on the same weights.

        Raises:
            ValueError: it was not trained with that class.
        """
        if label not in self.labels:
            known = f"it knows {', '.join(self.labels)}" if self.labels else "it was trained without classes"
            raise ValueError(f"the denoiser has no class {label!r}: {known}")
        view = copy(self)
        view.label = 1 + self.labels.index(label)
        return view

    def guided(self, weight: float) -> WienerUNet:
        """Return W + weight (D - W), W the Wiener filter, on the same weights; see `Guidable`."""
        view = copy(self)
        view.guidance = weight
        return view

    def correct(
        self,
        expert: Expert,
        z: Tensor,
        sigma: Tensor,
        estimate: Tensor,
        error: Tensor,
        where: Tensor,
        label: Tensor | int = 0,
    ) -> Tensor:
        """Return D of one expert, from the Wiener filter's estimate and error; sigma (B,), the class one or (B,)."""
        noise = sigma.view(-1, 1, 1, 1)
        # What the filter took away has variance sigma^2 - error^2; at unit scale bfloat16 keeps it.
        removed = (z - estimate) * torch.maximum(noise.square() - error.square(), 0.0025 * noise.square()).rsqrt()
        # The embedding of MONAI's network is sinusoidal in a "timestep" of order 0..1000.
        level = (sigma.log() - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min) * 1000
        skip, scale = skip_and_scale(expert.config.parametrisation, z, noise, estimate, error)
        return skip + scale * expert(removed, estimate, where, level, label).to(z.dtype)

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Return E[z0 | z0 + sigma n] for z (B, C, h, w), sigma a scalar or (B,)."""
        sigma = torch.as_tensor(sigma, dtype=z.dtype, device=z.device).expand(len(z))
        h, w = z.shape[-2:]
        estimate, error = self.wiener(z, sigma)
        where, result, below = positions((h, w), z), torch.empty_like(z), -math.inf
        for expert in self.experts.values():
            assert isinstance(expert, Expert)
            last = expert.config.up_to == self.sigma_max
            mine = (sigma > below) & ((sigma <= expert.config.up_to) | last)
            below = expert.config.up_to
            if bool(mine.all()):
                parts = zip(in_cache(z, 4), in_cache(sigma, 4), in_cache(estimate, 4), in_cache(error, 4), strict=True)
                result = torch.cat([self.correct(expert, *part, where, self.label) for part in parts])
            elif bool(mine.any()):
                part = z[mine], sigma[mine], estimate[mine], error[mine]
                result[mine] = self.correct(expert, *part, where, self.label)
        return result if self.guidance == 1 else estimate + self.guidance * (result - estimate)
