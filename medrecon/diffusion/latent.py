"""Pieces shared by the latent solvers: warm start, noise that a batch shares, the encoder-residual update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from medrecon.core.measurement import Measurement
from medrecon.diffusion.consistency import DataConsistency
from medrecon.models.denoiser import Denoiser
from medrecon.models.prior import Prior
from medrecon.numerics.linalg import expand
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import check_fit
from medrecon.solvers.variational.tv import TV


@dataclass
class Counter:
    """How often the networks ran, in items of the batch."""

    denoiser: int = 0
    encoder: int = 0
    decoder: int = 0


class LatentSpace:
    """Encoder, decoder and denoiser of a prior for one batch of images, counted."""

    def __init__(self, prior: Prior, A: LinearOperator, y: Measurement) -> None:
        check_fit(A, y)
        if len(A.in_shape) != 2:
            raise ValueError(f"latent solvers reconstruct slices (H, W); {A!r} takes {len(A.in_shape)}-D items")
        if A.in_dtype.is_complex and prior.phase is None and not prior.complex:
            raise ValueError(f"{A!r} takes complex images and {prior.name} is a magnitude prior: use prior.with_phase")
        if prior.complex and not A.in_dtype.is_complex:
            raise ValueError(f"{A!r} takes real images and {prior.name} is a prior of complex ones, for MRI")
        self.prior, self.shape, self.batch = prior, A.in_shape, len(y.data)
        self.device = y.data.device
        self.calls = Counter()

    def mirrored(self) -> LatentSpace:
        """The latent space of the mirrored images, on the same count."""
        other = copy(self)
        other.prior = self.prior.mirrored()
        return other

    def encode(self, x: Tensor) -> Tensor:
        self.calls.encoder += 1
        return self.prior.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        self.calls.decoder += 1
        return self.prior.decode(z, self.shape)

    def over_pixels(self, variance: Tensor) -> Tensor:
        """Of each place of the latent (B, h, w), for each pixel of the image (B, H, W)."""
        fine = interpolate(variance[:, None], scale_factor=self.prior.autoencoder.factor, mode="bilinear")
        fine = fine[:, 0, : self.shape[0], : self.shape[1]]
        return fine.flip(-1) if self.prior.mirror else fine

    def denoise(self, z: Tensor, sigma: float) -> Tensor:
        self.calls.denoiser += 1
        denoiser: Denoiser = self.prior.denoiser
        level = min(max(sigma, denoiser.sigma_min), denoiser.sigma_max)
        return denoiser(z, torch.full((len(z),), level, dtype=z.dtype, device=z.device))

    def noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """One draw shared by the batch: neighbouring slices agree, and a batch of 2 equals two runs."""
        draw = torch.randn((1, *like.shape[1:]), generator=generator, dtype=torch.float32)
        return draw.to(like).expand_as(like)


def warm_start(
    prior: Prior, A: LinearOperator, y: Measurement, sigma: float, generator: torch.Generator
) -> Tensor | None:
    """The image whose latent gets noise of level sigma: the TV reconstruction, the best start without training.

    None from sigma_max on: the start is pure noise, and the data enter by data consistency alone.
    """
    return TV()(A, y, generator=generator).image if sigma < prior.denoiser.sigma_max else None


def start_latent(space: LatentSpace, A: LinearOperator, y: Measurement, warm: Tensor | None) -> Tensor:
    """The latent to put noise on: that of the warm start, or 0."""
    return torch.zeros_like(space.encode(A.adjoint(y.data))) if warm is None else space.encode(warm)


def nearby(variance: Tensor) -> Tensor:
    """Variances (B, H, W) averaged over 5 x 5 pixels."""
    return avg_pool2d(variance[:, None], 5, 1, 2, count_include_pad=False)[:, 0]


def pattern(variance: Tensor, least: float | Tensor) -> Tensor:
    """A variance (B, H, W) as a pattern with mean 1; `least` is what there is of it everywhere."""
    variance = variance + least + torch.finfo(variance.dtype).tiny
    return variance / variance.mean((1, 2), keepdim=True)


def placed(difference: Tensor, rounding: float) -> Tensor:
    """Where two images (B, H, W) differ, as a pattern of variance; `rounding` is the variance that is no place."""
    return pattern(nearby(difference.abs().square()), rounding)


def inexpressible(space: LatentSpace, x: Tensor) -> Tensor:
    """Standard deviation (B, H, W), image units, of what the decoder could not express of the object that x = D(z)
    shows: of the size of the prior's round-trip error, in the place where another round trip loses it."""
    floor = space.prior.error
    return floor * placed(x - space.decode(space.encode(x)), 1e-3 * floor**2).sqrt()


def polished(space: LatentSpace, dc: DataConsistency, x: Tensor, variance: Tensor) -> Tensor:
    """x = D(z) with what the data say of all that the decoder could not express; then, where it is further from them
    than noise, moved towards them: up to that much and its own expected `variance` (B, H, W)."""
    lost = inexpressible(space, x)
    return dc.to_discrepancy(dc.prox(x, lost), (lost.square() + variance).sqrt())


def unsure(space: LatentSpace, z: Sequence[Tensor], z0: Sequence[Tensor]) -> Tensor:
    """Where the denoiser is unsure: its posterior variance, a pattern (B, H, W) in network range, from two latents with
    opposite noise and their D.

    Cov[z0 | z] = sigma^2 J with J the Jacobian of D (Tweedie's formula for the second moment, arXiv 2309.13598). The
    twins' difference is a white probe of J: what of it comes through D, over 5 x 5 pixels, is the diagonal there, at no
    further call.
    """
    probe, through = z[0] - z[1], z0[0] - z0[1]
    power, passed = (nearby(space.over_pixels((probe * of).mean(1))) for of in (probe, through))
    return passed.clamp_min(0) / power.clamp_min(torch.finfo(power.dtype).tiny)


PixelError = Callable[[Tensor, float, Tensor | None], Tensor]
"""(v (B, H, W), sigma, `unsure` (B, H, W) or None) -> standard deviation (B, H, W) expected of v = D(z0) at noise
sigma, in image units."""


def pixel_error(space: LatentSpace, z: Tensor, *, warm: bool) -> PixelError:
    """How large an error to expect of D(z0), and where; z is the latent the trajectory starts at.

    Its size: in network range the decoder's gain times the spread sigma / sqrt(1 + sigma^2) of a latent of unit
    variance, the gain measured once, around z; the value map carries it to the image. The round-trip error is its
    floor. Its place: where the denoiser is unsure, or, if that is not known, as the value map has it. After a `warm`
    start that is half of it, the other half where v has left D(z), for there one of the two is wrong.
    """
    prior = space.prior
    shift = 0.2 * space.noise(z, torch.Generator().manual_seed(0))
    x = space.decode(z)
    change = prior.network_values(space.decode(z + shift)) - prior.network_values(x)
    gain = (change.abs().square().flatten(1).mean(1) / shift.square().flatten(1).mean(1)).sqrt()
    spread, floor = prior.spread(x), prior.error
    error = expand(gain, 2) * spread

    def expected(v: Tensor, sigma: float, doubt: Tensor | None) -> Tensor:
        variance = floor**2 + error.square() * sigma**2 / (1 + sigma**2)
        mean = variance.mean((1, 2), keepdim=True)
        if doubt is not None:
            doubt = doubt * prior.spread(v).square()
            variance = mean * pattern(doubt, 0.02 * doubt.mean((1, 2), keepdim=True))
        if warm:
            variance = (variance + mean * placed(v - x, 0.05 * floor**2)) / 2
        return variance.sqrt()

    return expected


def encoder_residual(
    space: LatentSpace, dc: DataConsistency, z0: Tensor, expected: Callable[[Tensor], Tensor], rounds: int
) -> tuple[Tensor, Tensor]:
    """z0 <- z0 + E(prox(D z0)) - E(D z0), no autograd; returns the z0 and D(z0) of least chi^2 per item.

    The residual form leaves what the autoencoder cannot represent out of the update. It semi-converges, so
    an item stops when its misfit rises or reaches the noise.
    """
    x = space.decode(z0)
    projection = dc.A(x)
    misfit = dc.chi2(projection)
    active = misfit > 1
    for _ in range(rounds):
        if not bool(active.any()):
            break
        target = dc.prox(x, dc.deviation(projection, expected(x)))
        trial = z0 + space.encode(target) - space.encode(x)
        decoded = space.decode(trial)
        ahead = dc.A(decoded)
        better = active & (dc.chi2(ahead) < misfit)
        z0, x, projection = (
            torch.where(better.view(-1, *(1,) * (new.ndim - 1)), new, old)
            for new, old in ((trial, z0), (decoded, x), (ahead, projection))
        )
        misfit = dc.chi2(projection)
        active = better & (misfit > 1)
    return z0, x
