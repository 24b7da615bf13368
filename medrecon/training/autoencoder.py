"""Training of the autoencoder: windows weighted so that soft tissue and bone both count."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.models.networks.kl_autoencoder import KLAutoencoder, KLConfig
from medrecon.models.networks.pixel_space import PixelConfig, PixelSpace
from medrecon.models.values import ValueMap
from medrecon.quality.metrics import ssim_map
from medrecon.training.images.augment import Augment, crops
from medrecon.training.images.slices import Slices
from medrecon.training.loop.gpu import noise_like


class Window(BaseModel):
    """A value window the autoencoder must be good in."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    low: float
    """lower end, physical units"""
    high: float
    """upper end, physical units"""
    target_db: float = 35.0
    """PSNR aimed at: the window's squared error is weighted by its inverse, so that windows balance"""


class AutoencoderConfig(KLConfig):
    """Architecture and loss of the autoencoder."""

    crop: int = Field(128, gt=0, multiple_of=4)
    """side of the training crops in pixels"""
    batch: int = Field(8, gt=0)
    """crops a step"""
    kl: float = Field(1e-6, ge=0)
    """weight of the Kullback-Leibler term"""
    gradient: float = Field(0, ge=0)
    """weight of the absolute errors of differences between neighbours in the windows, over the error aimed at; at 1
    they count about as much as the squared errors"""
    ssim: float = Field(0, ge=0)
    """weight of 1 - SSIM in the windows"""
    augment: Augment = Augment()
    """how the crops vary"""


def relative_error(x: Tensor, truth: Tensor, window: Window) -> Tensor:
    """Error inside the window (B, H, W), relative to its width; of complex images without clipping."""
    a, b = (v if v.is_complex() else v.clamp(window.low, window.high) for v in (x, truth))
    return (a - b) / (window.high - window.low)


def window_error(x: Tensor, truth: Tensor, window: Window) -> Tensor:
    """Squared error inside the window per slice (B,), relative to its width; of complex images without clipping."""
    return relative_error(x, truth, window).abs().square().mean((-2, -1))


def edge_error(x: Tensor, truth: Tensor, window: Window) -> Tensor:
    """Absolute error of the differences between neighbours, inside the window and relative to its width, (B,).

    Mean of those along rows and along columns.
    """
    error = relative_error(x, truth, window)
    down, across = (error.diff(dim=axis).abs().mean((-2, -1)) for axis in (-2, -1))
    return (down + across) / 2


def dissimilarity(x: Tensor, truth: Tensor, window: Window) -> Tensor:
    """1 - SSIM as the window shows them, from 0 (low) to 1 (high), per slice (B,); of complex images the magnitudes."""
    a, b = (v.abs() if v.is_complex() else v for v in (x, truth))
    a, b = ((v.clamp(window.low, window.high) - window.low) / (window.high - window.low) for v in (a, b))
    return 1 - ssim_map(a.double(), b.double(), 1.0).mean((-2, -1)).float()  # variances are small differences


class AutoencoderTask:
    """Loss and validation of one autoencoder on one data set."""

    def __init__(
        self,
        config: AutoencoderConfig | PixelConfig,
        values: ValueMap,
        windows: dict[str, Window],
        train: Slices,
        held_out: Slices,
        device: str,
        bf16: bool,
    ) -> None:
        self.config, self.values, self.windows = config, values, windows
        self.train, self.held_out = train, held_out
        self.device, self.bf16 = device, bf16

    def autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16)

    def loss(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """|u' - u| in network range + weighted errors of the windows + KL."""
        assert isinstance(module, KLAutoencoder) and isinstance(self.config, AutoencoderConfig)
        x = crops(self.train, self.config.crop, self.config.batch, self.config.augment, generator).to(self.device)
        u = self.values.forward(x)
        with self.autocast():
            mean, std = module.posterior(u)
            decoded = module.reconstruct(mean + std * noise_like(mean, generator).to(mean))
        mean, std = mean.float(), std.float()
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        total = (decoded - u).abs().mean() + self.config.kl * kl
        estimate = self.values.inverse(decoded)
        for window in self.windows.values():
            weight = 0.01 * 10 ** (window.target_db / 10)
            total = total + weight * window_error(estimate, x, window).mean()
            if self.config.gradient:
                weight = 0.01 * self.config.gradient * 10 ** (window.target_db / 20)
                total = total + weight * edge_error(estimate, x, window).mean()
            if self.config.ssim:
                total = total + self.config.ssim * dissimilarity(estimate, x, window).mean()
        return total

    @torch.no_grad()
    def round_trip(self, module: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(module, KLAutoencoder | PixelSpace)
        with self.autocast():
            decoded = module.decode(module.encode(self.values.forward(x.to(self.device))))
        return self.values.inverse(decoded).cpu()

    @torch.no_grad()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Round-trip PSNR per window: mean over slices of a subject, then over held-out subjects.

        Of complex images that of the complex error, and as "magnitude_..." that of the magnitude's.
        """
        module.eval()
        scores: dict[str, dict[str, list[float]]] = {}
        for start in range(0, len(self.held_out.subjects), 8):
            x = self.held_out.images(slice(start, start + 8))
            y = self.round_trip(module, x)
            errors = {name: window_error(y, x, window) for name, window in self.windows.items()}
            if x.is_complex():
                errors |= {f"magnitude_{n}": window_error(y.abs(), x.abs(), w) for n, w in self.windows.items()}
            for name, values in errors.items():
                for i, error in enumerate(values.clamp_min(1e-12).tolist()):
                    subject = self.held_out.subjects[start + i]
                    scores.setdefault(name, {}).setdefault(subject, []).append(-10 * math.log10(error))
        module.train()
        per_subject = {n: [sum(v) / len(v) for v in by.values()] for n, by in scores.items()}
        return {f"psnr_{n}": sum(v) / len(v) for n, v in per_subject.items()}
