"""One YAML file describes the training of a prior: data, values, windows, networks, loops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from medrecon.models.networks.pixel_space import PixelConfig
from medrecon.models.store import value_map
from medrecon.models.values import Linear
from medrecon.training.autoencoder import AutoencoderConfig, Window
from medrecon.training.diffusion import DiffusionConfig
from medrecon.training.images.phases import Phases
from medrecon.training.loop.config import LoopConfig


def kind_of(autoencoder: Any) -> str:
    """The kind a configuration asks for, "kl" where it does not say."""
    return autoencoder.get("kind", "kl") if isinstance(autoencoder, dict) else getattr(autoencoder, "kind", "")


AnyAutoencoder = Annotated[
    Annotated[AutoencoderConfig, Tag("kl")] | Annotated[PixelConfig, Tag("pixels")],
    Discriminator(kind_of, "unknown_kind", "expected a mapping of kind kl, which is the default, or pixels"),
]


class TrainConfig(BaseModel):
    """Everything `medrecon train` needs."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    manifest: Path
    """data manifest (TOML) naming the training and validation data"""
    root: Path | None = None
    """folder the manifest's paths start from; default: the manifest's own rule"""
    modality: Literal["CT", "MR"]
    """what the prior is for"""
    start_from: Path | None = None
    """a prior (.safetensors) whose autoencoder, and experts of the same names, to continue from; default: random"""
    size: int = Field(256, gt=0, multiple_of=8)
    """side of the training slices in pixels"""
    values: dict[str, Any]
    """value map: {type: asinh} for HU, {type: linear} for magnitudes scaled to about 1, {type: linear, low: -1} for
    complex images"""
    phases: Phases | None = None
    """a prior of complex images: phases to put on the magnitudes; {} for the defaults"""
    start: float = Field(0.5, gt=0)
    """noise level at which ReSample starts from a TV image; choose it on validation slices (docs/design/resample.md)"""
    end: float = Field(0.12, gt=0)
    """noise level of ReSample's last step; choose it likewise"""
    steps: int = Field(8, ge=1)
    """ReSample's steps between them; choose them likewise"""
    pairs: int = Field(2, ge=1)
    """pairs of trajectories that ReSample averages; choose them likewise: one pair with more steps, or two"""
    search: int = Field(0, ge=0)
    """ReSample's plug-and-play iterations between the TV image and the first step; choose them likewise"""
    search_level: float = Field(1.2, gt=0)
    """noise level of the first of them"""
    search_below: float | None = Field(None, gt=0)
    """samples per pixel from which they are left out; none: never"""
    windows: dict[str, Window]
    """windows the autoencoder is trained and judged in; the first is the full range"""
    autoencoder: AnyAutoencoder = AutoencoderConfig()
    """the autoencoder; {kind: pixels, factor: 4} is pixel-space diffusion, which has none to train"""
    autoencoder_loop: LoopConfig = LoopConfig()
    """its training"""
    diffusion: DiffusionConfig = DiffusionConfig()
    """the latent denoiser"""

    @model_validator(mode="after")
    def _one_scale(self) -> TrainConfig:
        of_complex = isinstance(self.autoencoder, AutoencoderConfig) and self.autoencoder.complex
        if (self.phases is not None) != of_complex:
            raise ValueError("phases: {} goes with autoencoder: {complex: true}, and only with it")
        if self.phases is None:
            return self
        values = value_map(self.values)
        if self.modality != "MR" or not isinstance(values, Linear) or values.low != -values.high:
            raise ValueError(
                "phases: a prior of complex images is for MR and has one scale, no offset: "
                "values: {type: linear, low: -1, high: 1}"
            )
        return self

    def on(self, device: str) -> TrainConfig:
        """The same, on another device."""
        loop = {"device": device}
        experts = {
            name: e.model_copy(update={"loop": e.loop.model_copy(update=loop)})
            for name, e in self.diffusion.experts.items()
        }
        return self.model_copy(
            update={
                "autoencoder_loop": self.autoencoder_loop.model_copy(update=loop),
                "diffusion": self.diffusion.model_copy(update={"experts": experts}),
            }
        )
