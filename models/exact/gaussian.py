"""Exact Gaussian priors: denoiser, probability-flow ODE and posterior in closed form. The oracle of every test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from medrecon.models.autoencoder import Autoencoder
from medrecon.models.denoiser import Denoiser


@dataclass(frozen=True, eq=False)
class GaussianPrior(Denoiser):
    """z0 ~ N(mean, covariance) on latents of shape `shape` = (C, h, w); a Denoiser and its own oracle.

    mean (n,), covariance (n, n), n = C h w, float64 inside.
    """

    mean: Tensor
    covariance: Tensor
    shape: tuple[int, int, int]
    sigma_min: float = 1e-3
    sigma_max: float = 100.0
    values: Tensor = field(init=False, repr=False)
    vectors: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values, vectors = torch.linalg.eigh(self.covariance)
        object.__setattr__(self, "values", values.clamp_min(0))
        object.__setattr__(self, "vectors", vectors)

    def _flat(self, z: Tensor) -> Tensor:
        if tuple(z.shape[1:]) != tuple(self.shape):
            raise ValueError(
                f"GaussianPrior: knows latents of shape {tuple(self.shape)} alone, got {tuple(z.shape[1:])}"
            )
        return z.reshape(len(z), -1).double() - self.mean

    def _shaped(self, v: Tensor, like: Tensor) -> Tensor:
        return (v + self.mean).reshape(-1, *self.shape).to(like.dtype)

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Return E[z0 | z0 + sigma n] = mean + C (C + sigma^2 I)^-1 (z - mean)."""
        values, vectors = self.values, self.vectors
        s2 = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1).square()
        return self._shaped((self._flat(z) @ vectors * (values / (values + s2))) @ vectors.T, z)

    def flow(self, z: Tensor, sigma: float, target: float) -> Tensor:
        """Solve the probability-flow ODE dz/dsigma = (z - D(z, sigma)) / sigma from z to `target`, exactly.

        In the eigenbasis every coordinate scales by sqrt((lambda + target^2) / (lambda + sigma^2)).
        """
        values, vectors = self.values, self.vectors
        gain = ((values + target**2) / (values + sigma**2)).sqrt()
        return self._shaped((self._flat(z) @ vectors * gain) @ vectors.T, z)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw exact samples (count, C, h, w), float32."""
        values, vectors = self.values, self.vectors
        noise = torch.randn(count, len(self.mean), dtype=torch.float64, generator=generator)
        # The symmetric root of the covariance, which is one whatever signs and basis the eigenvectors come in.
        return self._shaped((noise @ vectors * values.sqrt()) @ vectors.T, torch.empty(0))

    def posterior(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Find mean (n,) and covariance (n, n) of z0 given y = matrix z0 + sigma n (Kalman); matrix (m, n), y (m,)."""
        a, c = matrix.double(), self.covariance
        gain = torch.linalg.solve(a @ c @ a.T + sigma**2 * torch.eye(len(a), dtype=torch.float64), a @ c).T
        return self.mean + gain @ (y.double() - a @ self.mean), c - gain @ a @ c


def smooth_gaussian(shape: tuple[int, int, int], length: float = 1.5, scale: float = 1.0) -> GaussianPrior:
    """Return a Gaussian prior with squared-exponential correlation of `length` pixels, for tests and examples."""
    channels, h, w = shape
    rows, cols = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    place = torch.stack([rows.flatten(), cols.flatten()], 1).double()
    kernel = torch.exp(-torch.cdist(place, place).square() / (2 * length**2)) + 0.01 * torch.eye(h * w)
    covariance = scale**2 * torch.block_diag(*[kernel.double()] * channels)
    mean = torch.linspace(-0.5, 0.5, channels * h * w, dtype=torch.float64) * scale
    return GaussianPrior(mean, covariance, shape)


@dataclass(frozen=True)
class IdentityAutoencoder(Autoencoder):
    """Pixel space as its own latent space: z = u[:, None], or real and imaginary part where images are complex."""

    factor: int = 1
    complex: bool = False
    orthogonal: ClassVar[bool] = True

    def encode(self, u: Tensor) -> Tensor:
        return torch.stack([u.real, u.imag], 1) if self.complex else u[:, None]

    def decode(self, z: Tensor) -> Tensor:
        return torch.complex(z[:, 0], z[:, 1]) if self.complex else z[:, 0]
