"""The latent space of a prior for a batch of images: encoder, decoder and denoiser, counted where they run."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medrecon.core.measurement import Measurement
from medrecon.diffusion.derivatives import check_finite, denoise
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import averaged
from medrecon.operators.base import LinearOperator

Pullback = Callable[[Tensor], Tensor]
"""v -> J^H v of a function that was run: dL/dx to dL/dz of a real L."""


LARGEST, FURTHEST = 30.0, 300.0
"""Root mean square, in deviations of the prior's latents, beyond which nothing is believed: of a denoised latent, whose
images have 0.3 to 3, over that of its input; and of the input, which steps from pure noise may take to 30."""


@dataclass
class Counter:
    """How often the networks ran for each item of the batch."""

    denoiser: int = 0
    encoder: int = 0
    decoder: int = 0


class LatentSpace:
    """Encoder, decoder and denoiser of a prior for N = K B images: K trajectories of the B images that A and y are of.

    Raises:
        ValueError: the operator is not one of slices, or its images are complex and the prior knows none, or the
            reverse.
    """

    def __init__(self, prior: Prior, A: LinearOperator, y: Measurement) -> None:
        if len(A.in_shape) != 2:
            raise ValueError(f"latent solvers reconstruct slices (H, W); {A!r} takes {len(A.in_shape)}-D items")
        if A.in_dtype.is_complex and prior.phase is None and not prior.complex:
            raise ValueError(f"{A!r} takes complex images and {prior.name} is a magnitude prior: use prior.with_phase")
        if prior.complex and not A.in_dtype.is_complex:
            raise ValueError(f"{A!r} takes real images and {prior.name} is a prior of complex ones, for MRI")
        self.prior, self.shape, self.batch = prior, A.in_shape, len(y.data)
        self.calls = Counter()

    def repeated(self, count: int, mirror: Tensor | None = None) -> LatentSpace:
        """Return that of `count` batches in one, those of `mirror` (count,) seen in a mirror, on the same count."""
        other = copy(self)
        other.prior = self.prior.repeated(count, mirror)
        return other

    def _by_image(self, network: Callable[..., Tensor], *batches: Tensor) -> Tensor:
        """Apply a function of the prior and batches (N, ...): on a CPU, whose sums torch groups by the size of a batch,
        to the K trajectories of one image after another, which gives each image the same bits in any batch."""
        if self.batch == 1 or batches[0].device.type != "cpu":
            return network(self.prior, *batches)
        parts = []
        for b in range(self.batch):
            phase = self.prior.phase
            shared = phase is None or len(phase) == 1
            prior = self.prior if shared or phase is None else replace(self.prior, phase=phase[b :: self.batch])
            parts.append(network(prior, *(batch[b :: self.batch] for batch in batches)))
        return torch.stack(parts, 1).flatten(0, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Return E(x) (N, C, h, w) of images (N, *in_shape)."""
        self.calls.encoder += len(x) // self.batch
        return self._by_image(Prior.encode, x)

    def decode(self, z: Tensor) -> Tensor:
        """Return D(z) (N, *in_shape) of latents."""
        self.calls.decoder += len(z) // self.batch
        return self._by_image(lambda prior, z: prior.decode(z, self.shape), z)

    def denoise(self, z: Tensor, sigma: float) -> Tensor:
        """Return E[z0 | z] (N, C, h, w).

        Raises:
            ValueError: the network gave NaN or infinite values, or what it gets or gives is far larger than latents
                are; names it and the noise level.
        """
        known = f"noise level {sigma:.3g}: what the denoiser of {self.prior.name}"
        far = check_size(z / (1 + sigma), f"{known} gets", FURTHEST)
        self.calls.denoiser += len(z) // self.batch
        clean = self._by_image(lambda prior, z: denoise(prior.denoiser, z, sigma), z)
        check_finite(clean, f"{known} gave")
        check_size(clean, f"{known} gave", LARGEST * max(1.0, far))
        return clean

    def carried(self, z0: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """Return z0 + E(x) - E(v), or nearly that: the latent of v = D(z0) moved as its image was moved, to x.

        E(x) alone would drift: E after D is not the identity, and its error adds up over the steps.
        """
        self.calls.encoder += self.prior.autoencoder.encodings * len(x) // self.batch
        return z0 + self._by_image(Prior.change, v, x)

    def denoised(self, z: Tensor, sigma: float) -> tuple[Tensor, Pullback]:
        """Return E[z0 | z] and v (N, C, h, w) -> J^T v, J = dE[z0 | z]/dz: sigma^2 J is Cov[z0 | z], and symmetric."""
        return _pullback(lambda leaf: self.denoise(leaf, sigma), z)

    def decoded(self, z0: Tensor) -> tuple[Tensor, Pullback]:
        """Return the image x of a latent and v (N, *in_shape) -> G^H v (N, C, h, w), G = dx/dz0."""
        return _pullback(self.decode, z0)

    def pulled(self, z: Tensor, sigma: float) -> tuple[Tensor, Tensor, Pullback]:
        """Return E[z0 | z], its image x, and v (N, *in_shape) -> J^H v (N, C, h, w), J = dx/dz through both networks.

        With v = dL/dx, the gradient of a real L as `DataConsistency.gradient` gives it, J^H v is dL/dz.
        """
        z0, through = self.denoised(z, sigma)
        x, back = self.decoded(z0)
        return z0, x, lambda v: through(back(v))

    def pushed(self, z0: Tensor, v: Tensor) -> Tensor:
        """Return G v (N, *in_shape), G = dx/dz0: by how much the image of z0 changes along v (N, C, h, w)."""
        change: Tensor = torch.func.jvp(lambda leaf: self.prior.decode(leaf, self.shape), (z0,), (v,))[1]
        return change

    def over_pixels(self, variance: Tensor) -> Tensor:
        """Return for each pixel (N, H, W) what is known of each place of the latent (N, h, w)."""
        fine = interpolate(variance[:, None], scale_factor=self.prior.autoencoder.factor, mode="bilinear")
        return self.prior.reflect(fine[:, 0, : self.shape[0], : self.shape[1]])


def check_size(latents: Tensor, what: str, largest: float) -> float:
    """Return the root mean square of the largest of latents (N, C, h, w).

    Steps that diverge, images in other units than the prior's and denoisers that do not know a noise level show here
    first, long before anything is infinite.

    Raises:
        ValueError: it is above `largest`; says `what` the latents are.
    """
    size = float(averaged(latents.detach().square(), latents.ndim - 1).amax()) ** 0.5
    if largest < size:
        raise ValueError(
            f"{what} is {size:.3g} times as large as latents are: the steps diverge, the images are not in the units "
            "of the prior, or it does not know this noise level"
        )
    return size


def _pullback(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Pullback]:
    """The value of a function and its pullback, which may be called any number of times."""
    with torch.enable_grad():
        leaf = at.detach().requires_grad_(True)
        value = function(leaf)

    def back(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(value, leaf, v, retain_graph=True)
        return product

    return value.detach(), back
