"""Prior: a denoiser of latents, the way there and back, and the units of its images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from medrecon.models.autoencoder import Autoencoder
from medrecon.models.denoiser import Conditional, Denoiser, Guidable
from medrecon.models.values import Linear, ValueMap


@dataclass(frozen=True, eq=False)
class Prior:
    """A denoiser in latent space, the way there and back, and the units it was trained in.

    A solver calls `encode` and `decode` on images in its own units: those of the operator. The pipeline
    adapts: `with_units` (1/mm for HU, a scanner scale for MR magnitude) and, a magnitude prior, `with_phase`.

    Attributes:
        values: physical values (`units`) -> network range.
        error: root-mean-square round-trip error |D(E(x)) - x| on held-out subjects, in image units.
        slope, intercept: physical value = slope * image value + intercept.
        phase: unit-modulus complex (B or 1, H, W) or None; the image is then magnitude times phase.
        mirror: (R,) bool, which of R equal parts of a batch are mirrored left to right on their way in and on their
            way out; None: none.
        label: the class of images it is told it sees, or None: see `conditioned`.
        card: the model card: where it comes from, and what was chosen for it on validation slices.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    values: ValueMap
    units: str
    modality: str
    error: float
    name: str = "prior"
    slope: float = 1.0
    intercept: float = 0.0
    phase: Tensor | None = None
    mirror: Tensor | None = None
    label: str | None = None
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def complex(self) -> bool:
        """Tell whether it is a prior of complex images of any phase: it takes them as they are."""
        return self.autoencoder.complex

    @property
    def flat(self) -> bool:
        """Tell whether latents are images up to one factor and a level: white noise of one is white in the other."""
        return self.autoencoder.orthogonal and isinstance(self.values, Linear)

    def with_units(self, slope: float, intercept: float = 0.0) -> Prior:
        """Return the same prior for images x with physical value slope * x + intercept."""
        return replace(
            self,
            slope=self.slope * slope,
            intercept=self.slope * intercept + self.intercept,
            error=self.error / abs(slope),
        )

    def with_phase(self, phase: Tensor) -> Prior:
        """Return the same magnitude prior for complex images: encode Re(conj(phase) x), decode times phase.

        The demodulated real part is used, not |x|: it has no Rician bias.

        Raises:
            ValueError: a complex prior, which needs no phase.
        """
        if self.complex:
            raise ValueError(f"{self.name} is a prior of complex images and needs no phase")
        return replace(self, phase=phase)

    def mirrored(self) -> Prior:
        """Return the prior seen in a mirror: it errs elsewhere, so that the mean of both errs less."""
        return self.repeated(1, torch.ones(1, dtype=torch.bool))

    def repeated(self, count: int, mirror: Tensor | None = None) -> Prior:
        """Return the same prior for `count` batches in one, one after another; in those of `mirror` (count,) the
        images are seen in a mirror."""
        before = torch.zeros(1, dtype=torch.bool) if self.mirror is None else self.mirror
        turned = torch.zeros(count, dtype=torch.bool) if mirror is None else mirror
        flags = before.repeat(count) ^ turned.repeat_interleave(len(before))
        shared = self.phase is None or len(self.phase) == 1
        phase = self.phase if shared or self.phase is None else self.phase.repeat(count, 1, 1)
        return replace(self, phase=phase, mirror=flags if bool(flags.any()) else None)

    def reflect(self, u: Tensor) -> Tensor:
        """Mirror those images (N, ..., W) of a batch that the prior sees in a mirror."""
        if self.mirror is None:
            return u
        flags = self.mirror.repeat_interleave(len(u) // len(self.mirror)).to(u.device)
        return torch.where(flags.view(-1, *(1,) * (u.ndim - 1)), u.flip(-1), u)

    def conditioned(self, label: str) -> Prior:
        """Return the same prior, told what it is to see, such as "chest": one of the classes it was trained with.

        Raises:
            ValueError: it was not trained with that class; names those it was.
        """
        if not isinstance(self.denoiser, Conditional):
            raise ValueError(f"{self.name}: the denoiser has no class {label!r}: it knows none")
        try:
            return replace(self, denoiser=self.denoiser.conditioned(label), label=label)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def guided(self, weight: float) -> Prior:
        """Return the same prior, more certain by `weight` than it is: for samples to look at, not for reconstruction.

        Raises:
            ValueError: weight is not positive, or the denoiser knows no poorer one to be guided away from.
        """
        if not weight > 0:
            raise ValueError(f"expected a guidance above 0, got {weight:g}")
        if weight == 1:
            return self
        if not isinstance(self.denoiser, Guidable):
            raise ValueError(f"{self.name}: the denoiser cannot be guided: it has no Wiener filter of its own")
        return replace(self, denoiser=self.denoiser.guided(weight))

    def network_values(self, x: Tensor) -> Tensor:
        """Bring images (B, H, W) from image units to network range."""
        if self.phase is not None:
            x = (x * self.phase.conj()).real
        if x.is_complex() != self.complex:
            ours, given = ("complex", "real") if self.complex else ("real", "complex")
            raise ValueError(f"{self.name} is a prior of {ours} images, got {given} ones of shape {[*x.shape]}")
        return self.values.forward(x * self.slope + self.intercept)

    def spread(self, x: Tensor) -> Tensor:
        """Return |dx/du| at x (B, H, W), image units: an error of 1 in network range is one of so much in the image."""
        return self.values.derivative(self.network_values(x)) / abs(self.slope)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the latent height and width of an image (H, W), padded up to a multiple of the factor."""
        h, w = (-(-n // self.autoencoder.factor) for n in shape[-2:])
        return h, w

    def encode(self, x: Tensor) -> Tensor:
        """Encode x (B, H, W) in image units to z (B, C, h, w); pads by replication to a multiple of the factor."""
        return self.autoencoder.encode(self._prepared(x))

    def change(self, x: Tensor, moved: Tensor) -> Tensor:
        """Return by how much the latents (B, C, h, w) of images x change when these become `moved`, near them."""
        return self.autoencoder.change(self._prepared(x), self._prepared(moved))

    def _prepared(self, x: Tensor) -> Tensor:
        """Images as the autoencoder takes them."""
        u = self.reflect(self.network_values(x))
        h, w = self.latent_shape(tuple(u.shape))
        bottom, right = h * self.autoencoder.factor - u.shape[-2], w * self.autoencoder.factor - u.shape[-1]
        if bottom or right:
            u = torch.nn.functional.pad(u[:, None], (0, right, 0, bottom), mode="replicate")[:, 0]
        return u

    def decode(self, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Decode z (B, C, h, w) to x (B, H, W) in image units, cropped to `shape`."""
        u = self.reflect(self.autoencoder.decode(z)[..., : shape[-2], : shape[-1]])
        x = (self.values.inverse(u) - self.intercept) / self.slope
        return x if self.phase is None else x * self.phase
