"""Denoisers: the one contract of every diffusion prior, D(z, sigma) = E[z0 | z0 + sigma n]."""

from __future__ import annotations

import abc

from torch import Tensor


class Denoiser(abc.ABC):
    """D(z, sigma) = E[z0 | z0 + sigma n], n ~ N(0, I): the one noise convention (variance exploding).

    A network is a module first, `class Network(nn.Module, Denoiser)`: a call then runs its `forward`. `models.adapters`
    bring foreign networks to this convention.

    Attributes:
        sigma_min, sigma_max: the noise levels that it knows.
    """

    sigma_min: float
    sigma_max: float

    @abc.abstractmethod
    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Denoise z (B, C, h, w); sigma a scalar or (B,) in [sigma_min, sigma_max]."""


class Conditional(Denoiser):
    """A denoiser that also knows classes of images by name; as it is, it is that of all of them together."""

    labels: tuple[str, ...]

    @abc.abstractmethod
    def conditioned(self, label: str) -> Denoiser:
        """Return the denoiser of one class of images.

        Raises:
            ValueError: a class that it does not know; names those it knows.
        """


class Guidable(Denoiser):
    """A denoiser that knows a poorer one, W, of the same images."""

    @abc.abstractmethod
    def guided(self, weight: float) -> Denoiser:
        """Return W + weight (D - W): autoguidance (arXiv 2406.02507, eq. 3)."""
