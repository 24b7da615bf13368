"""Pieces shared by the latent solvers: warm start, noise that a batch shares, the encoder-residual update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.measurement import Measurement
from medrecon.models.base import Denoiser, Prior
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import check_fit
from medrecon.solvers.consistency import DataConsistency
from medrecon.solvers.tv import TV


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
        if A.in_dtype.is_complex and prior.phase is None:
            raise ValueError(f"{A!r} takes complex images and {prior.name} is a magnitude prior: use prior.with_phase")
        self.prior, self.shape, self.batch = prior, A.in_shape, len(y.data)
        self.device = y.data.device
        self.calls = Counter()
        self.residual: Tensor | float = 0.0

    def encode(self, x: Tensor) -> Tensor:
        self.calls.encoder += 1
        return self.prior.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """D(z), plus what the autoencoder cannot represent of the warm start, if `carry` was called."""
        self.calls.decoder += 1
        return self.prior.decode(z, self.shape) + self.residual

    def carry(self, x: Tensor) -> Tensor:
        """E(x); from now on decode adds x - D(E(x)), so the autoencoder's own error does not cap the result."""
        z = self.encode(x)
        self.residual = x - self.decode(z)
        return z

    def denoise(self, z: Tensor, sigma: float) -> Tensor:
        self.calls.denoiser += 1
        denoiser: Denoiser = self.prior.denoiser
        level = min(max(sigma, denoiser.sigma_min), denoiser.sigma_max)
        return denoiser(z, torch.full((len(z),), level, dtype=z.dtype, device=z.device))

    def noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """One draw shared by the batch: neighbouring slices agree, and a batch of 2 equals two runs."""
        draw = torch.randn((1, *like.shape[1:]), generator=generator, dtype=torch.float32)
        return draw.to(like).expand_as(like)


def start_latent(space: LatentSpace, A: LinearOperator, y: Measurement, sigma: float,
                 generator: torch.Generator) -> Tensor:  # fmt: skip
    """z at noise level sigma: around the encoded TV reconstruction, the strongest start that needs no training.

    From sigma_max on the start is pure noise: the data then enter by data consistency alone.
    """
    if sigma >= space.prior.denoiser.sigma_max:
        z = torch.zeros_like(space.encode(A.adjoint(y.data)))
    else:
        z = space.carry(TV()(A, y, generator=generator).image)
    return z + sigma * space.noise(z, generator)


def pixel_error(space: LatentSpace, z: Tensor) -> Callable[[float], float]:
    """sigma -> root-mean-square error expected of D(z0) at noise sigma: round trip, and the decoder's gain times
    the spread sigma / sqrt(1 + sigma^2) of a latent of unit variance. The gain is measured once, around z.
    """  # fmt: skip
    g = torch.Generator().manual_seed(0)
    shift = 0.2 * space.noise(z, g)
    change = (space.decode(z + shift) - space.decode(z)).abs().square().mean().sqrt()
    gain, floor = float(change / shift.square().mean().sqrt()), space.prior.error
    return lambda sigma: (floor**2 + gain**2 * sigma**2 / (1 + sigma**2)) ** 0.5


def encoder_residual(
    space: LatentSpace, dc: DataConsistency, z0: Tensor, expected: float, rounds: int
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
        target = dc.prox(x, dc.variance(projection, expected))
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
