"""Training of one expert of the latent denoiser, measured against the Gaussian of the same latents."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from medrecon.models.networks.wiener_unet import Expert, ExpertConfig, WienerUNet, positions
from medrecon.training.images.augment import Augment
from medrecon.training.loop.config import LoopConfig
from medrecon.training.loop.gpu import noise_like

Weighting = Literal["error", "edm", "min-snr"]
LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Noise levels of the validation."""
MARGIN = 1.5
"""an expert is trained to this factor beyond its range, so that it is sure of itself at the border"""


class ExpertTraining(ExpertConfig):
    """One expert and its training."""

    crop: int = Field(32, gt=0)
    """side of the training crops of the latent; the network knows the position of the crop (PaDIS, arXiv 2406.02462);
    that of the whole latent for an expert that is to know the whole body"""
    batch: int = Field(16, gt=0)
    """crops a step"""
    views: int = Field(3, gt=0)
    """augmented copies of every slice that are encoded once, before training"""
    augment: Augment = Augment()
    """how the copies vary"""
    weighting: Weighting = "error"
    """weight of the squared error over noise: see `weights`"""
    untold: float = Field(0.2, ge=0, le=1)
    """share of the crops whose class is kept secret, so that the denoiser of all classes together is learnt too"""
    loop: LoopConfig = LoopConfig(lr=5e-4)
    """how long and how fast"""


class DiffusionConfig(BaseModel):
    """The latent denoiser."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    sigma_min: float = Field(0.01, gt=0)
    """smallest noise, in units of the latent standard deviation"""
    experts: dict[str, ExpertTraining] = {"all": ExpertTraining()}
    """networks by name, from low noise to high; the largest `up_to` is the largest noise"""
    spectrum: int | None = Field(None, gt=1)
    """frequencies a side kept of the Wiener filter's spectrum, which makes the file smaller; all by default"""
    labels: dict[str, str] = {}
    """classes of images that can be told apart, {head: brain|skull, chest: ^ct_lidc}: a slice is of the first whose
    regular expression is found in the path of its file, in source/subject/detail of a sheet; else of none"""

    @field_validator("labels")
    @classmethod
    def _compile(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, rule in labels.items():
            try:
                re.compile(rule)
            except re.error as error:
                raise ValueError(f"{name}: {rule!r} is not a regular expression: {error}") from error
        return labels

    def denoiser(self, latent_channels: int, grid: int) -> WienerUNet:
        grid = self.spectrum or grid
        return WienerUNet(self.experts, self.sigma_min, latent_channels, grid, tuple(self.labels))


def weights(kind: Weighting, sigma: Tensor, error: Tensor) -> Tensor:
    """Weight of |D - z0|^2 at noise sigma.

    error: 1 / error^2 of the Wiener filter, so that 1 is the Gaussian's level everywhere. edm: (1 + sigma^2) / sigma^2
    (arXiv 2206.00364, table 1, latents of unit variance). min-snr: min(1 / sigma^2, 5) (arXiv 2303.09556).
    """
    if kind == "error":
        return error.square().reciprocal()
    snr = sigma.square().reciprocal()
    return 1 + snr if kind == "edm" else snr.clamp(max=5.0)


class DiffusionTask:
    """Loss and validation of one expert; latents are not normalised, (N, C, h, w), of any dtype.

    `labels`: classes of the latents, and of those held out, (N,) each, 0 where unknown; None, there are no classes.
    """

    def __init__(
        self,
        denoiser: WienerUNet,
        name: str,
        config: ExpertTraining,
        latents: Tensor,
        held_out: Tensor,
        mean: Tensor,
        std: Tensor,
        labels: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.denoiser, self.config, self.labels = denoiser, config, labels
        self.latents, self.held_out, self.mean, self.std = latents, held_out, mean, std
        names = list(denoiser.experts)
        before = names.index(name) - 1
        low = config_of(denoiser, names[before]).up_to / MARGIN if before >= 0 else denoiser.sigma_min
        self.range = low, min(config.up_to * MARGIN, denoiser.sigma_max)

    def normalised(self, z: Tensor) -> Tensor:
        return (z.to(self.mean.device, torch.float32) - self.mean) / self.std

    def sigmas(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels, uniform in log sigma (half the log signal-to-noise ratio), stratified over the batch."""
        low, high = (math.log(s) for s in self.range)
        place = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        return (low + (high - low) * place).exp().to(self.mean.device)

    def told(self, index: Tensor, generator: torch.Generator) -> Tensor | int:
        """Classes of these latents, a share of them kept secret."""
        if self.labels is None:
            return 0
        secret = torch.rand(len(index), generator=generator) < self.config.untold
        return self.labels[0][index].masked_fill(secret, 0).to(self.mean.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.mean.device.type, torch.bfloat16, enabled=self.config.loop.bf16)

    def loss(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Weighted squared error of the denoised crop."""
        assert isinstance(module, Expert)
        batch, side = self.config.batch, self.config.crop
        index = torch.randint(len(self.latents), (batch,), generator=generator)
        z0, label = self.normalised(self.latents[index]), self.told(index, generator)
        sigma = self.sigmas(batch, generator)
        noise = sigma.view(-1, 1, 1, 1)
        z = z0 + noise * noise_like(z0, generator)
        estimate, error = self.denoiser.wiener(z, sigma)
        h, w = z.shape[-2:]
        top, left = (int(torch.randint(max(1, n - side + 1), (1,), generator=generator)) for n in (h, w))
        window = (..., slice(top, top + side), slice(left, left + side))
        with self.autocast():
            out = self.denoiser.correct(
                module, z[window], sigma, estimate[window], error, positions((h, w), z)[window], label
            )
        return (weights(self.config.weighting, noise, error) * (out - z0[window]).square()).mean()

    @torch.no_grad()
    def errors(
        self, module: nn.Module, levels: Sequence[float] = LEVELS, *, told: bool = False
    ) -> dict[float, tuple[float, float]]:
        """Per noise level: mean squared error of the expert and of the stationary Gaussian, on held-out latents, whose
        classes the expert is `told` or not."""
        assert isinstance(module, Expert)
        module.eval()
        secret = torch.zeros(len(self.held_out), dtype=torch.long)
        labels = self.labels[1] if told and self.labels is not None else secret
        table = {}
        for level in (s for s in levels if self.range[0] <= s <= self.range[1]):
            g = torch.Generator().manual_seed(0)
            ours, gauss, count = 0.0, 0.0, 0
            for z0, label in zip(map(self.normalised, self.held_out.split(8)), labels.split(8), strict=True):
                sigma = torch.full((len(z0),), level, device=z0.device)
                z = z0 + level * torch.randn(z0.shape, generator=g).to(z0.device)
                estimate, error = self.denoiser.wiener(z, sigma)
                where = positions((z.shape[-2], z.shape[-1]), z)
                with self.autocast():
                    out = self.denoiser.correct(module, z, sigma, estimate, error, where, label.to(z.device))
                ours += float((out - z0).square().sum())
                gauss += float((estimate - z0).square().sum())
                count += z0.numel()
            table[level] = (ours / count, gauss / count)
        module.train()
        return table

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Ratio of the expert's squared error to the Gaussian's per level; below 1 everywhere is the bar. With classes
        also where it is told them."""
        tables = {"ratio": self.errors(module)}
        if self.labels is not None:
            tables["told"] = self.errors(module, told=True)
        return {
            f"{kind}_{level:g}": ours / gauss
            for kind, table in tables.items()
            for level, (ours, gauss) in table.items()
        }


def config_of(denoiser: WienerUNet, name: str) -> ExpertConfig:
    expert = denoiser.experts[name]
    assert isinstance(expert, Expert)
    return expert.config
