"""Autoencoders: the contract of the way from images to latents and back."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor


class Autoencoder(abc.ABC):
    """Images to latents of zero mean and unit variance per channel, and back.

    Images are real, or those of a complex prior complex; latents are real.

    Attributes:
        factor: how many times smaller the latent is than the image, each way.
        complex: takes and gives complex images, of any phase.
        encodings: how often the encoder runs in `change`.
        orthogonal: latents are the pixels in another place, up to one factor: white noise stays white.
    """

    factor: int
    complex: bool
    encodings: ClassVar[int] = 2
    orthogonal: ClassVar[bool] = False

    @abc.abstractmethod
    def encode(self, u: Tensor) -> Tensor:
        """Encode images (B, H, W), multiples of `factor`, to latents (B, C, H / factor, W / factor)."""

    @abc.abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) to images (B, h * factor, w * factor)."""

    def change(self, u: Tensor, v: Tensor) -> Tensor:
        """Return E(v) - E(u) of images near each other, or nearly that where it comes at less cost."""
        return self.encode(v) - self.encode(u)
