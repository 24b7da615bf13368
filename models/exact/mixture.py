"""The exact denoiser of a Gaussian mixture: each component a mean image and a stationary covariance of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from medrecon.models.denoiser import Denoiser

COARSE = 16
"""side of the grid on which mean images are kept, and slices sorted to begin with: the layout of a body"""


@dataclass(frozen=True, eq=False)
class StationaryMixture(Denoiser):
    """z0 ~ sum_k weights_k N(means_k, C_k), C_k diagonal over the frequencies of the DFT; a Denoiser in closed form.

    weights (K,); means (K, C, h, w); spectra (K, h, w / 2 + 1, C, C) complex Hermitian: cross-spectral densities of the
    unitary DFT, of half the plane as in `rfft2`. float64 inside. Knows latents of the size of its means only.
    """

    weights: Tensor
    means: Tensor
    spectra: Tensor
    sigma_min: float = 0.01
    sigma_max: float = 80.0
    values: Tensor = field(init=False, repr=False)
    vectors: Tensor = field(init=False, repr=False)
    transforms: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values, vectors = torch.linalg.eigh(self.spectra.to(torch.complex128))
        object.__setattr__(self, "values", values.clamp_min(1e-8)[..., None])
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "transforms", torch.stack([_transformed(mean[None]) for mean in self.means]))

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Return E[z0 | z0 + sigma n] = sum_k r_k D_k, D_k the Wiener filters; z (B, C, h, w), sigma a scalar or (B,).

        Raises:
            ValueError: latents of another size.
        """
        if z.shape[1:] != self.means.shape[1:]:
            raise ValueError(f"mixture: latents {tuple(z.shape[1:])}, fitted to {tuple(self.means.shape[1:])}")
        variance, f = _variance(z, sigma), _transformed(z)
        found = torch.zeros_like(f)
        for k, share in enumerate(self.responsibilities(z, sigma).T):
            gain = self.values[k] / (self.values[k] + variance)
            found += share * (self.transforms[k] + self.vectors[k] @ (gain * self._coefficients(f, k)))
        return torch.fft.irfft2(found.permute(3, 2, 0, 1), s=z.shape[-2:], norm="ortho").to(z.dtype)

    def responsibilities(self, z: Tensor, sigma: Tensor | float) -> Tensor:
        """Return p(k | z) of z = z0 + sigma n, (B, K) float64."""
        return self.joint(z, sigma).softmax(1)

    def log_density(self, z: Tensor, sigma: Tensor | float) -> Tensor:
        """Return log p(z), natural, of z = z0 + sigma n; (B,) float64."""
        return self.joint(z, sigma).logsumexp(1)

    def joint(self, z: Tensor, sigma: Tensor | float) -> Tensor:
        """Return log p(k) p(z | k), (B, K) float64: the coefficients in the eigenvectors are independent."""
        variance, f, width = _variance(z, sigma), _transformed(z), z.shape[-1]
        # Columns 0 and Nyquist are there once; the others stand for their conjugates too.
        twice = 2.0 - (torch.arange(f.shape[1], device=z.device) * 2 % width == 0).double()
        columns = []
        for k, weight in enumerate(self.weights.double()):
            total = self.values[k] + variance
            white = torch.view_as_real(self._coefficients(f, k) * total.rsqrt())
            terms = white.square().sum((0, 2, 4)) + (2 * math.pi * total).log().sum((0, 2))
            columns.append(weight.log() - 0.5 * twice @ terms)
        return torch.stack(columns, 1)

    def _coefficients(self, f: Tensor, k: int) -> Tensor:
        """Of the DFT f (h, w / 2 + 1, C, B), less that of means_k, in the eigenvectors of component k."""
        return self.vectors[k].mH @ (f - self.transforms[k])


def _variance(z: Tensor, sigma: Tensor | float) -> Tensor:
    """sigma^2, (B,) or (1,), to go with (h, w / 2 + 1, C, B)."""
    return torch.as_tensor(sigma, dtype=torch.float64, device=z.device).reshape(-1).square()


def _transformed(z: Tensor) -> Tensor:
    """Half the unitary DFT of real z (B, C, h, w), (h, w / 2 + 1, C, B)."""
    return torch.fft.rfft2(z.double(), norm="ortho").permute(2, 3, 1, 0).contiguous()


def fit_mixture(
    latents: Tensor, components: int, generator: torch.Generator, *, steps: int = 6, shrinkage: float = 50.0
) -> StationaryMixture:
    """Fit by expectation maximisation to latents (N, C, h, w), from k-means of their layout; what none chooses goes.

    shrinkage: how many slices the covariance of all residuals counts for beside a component's own.
    """
    shares = _kmeans(adaptive_avg_pool2d(latents, COARSE).flatten(1).double(), components, generator)
    mixture = _maximised(latents, shares, shrinkage)
    for _ in range(steps):
        found = torch.cat([mixture.responsibilities(part, 0.0) for part in latents.split(64)])
        settled = found.shape == shares.shape and bool((found - shares).abs().max() < 1e-3)
        shares = found
        mixture = _maximised(latents, shares, shrinkage)
        if settled:
            break
    return mixture


def _maximised(latents: Tensor, shares: Tensor, shrinkage: float) -> StationaryMixture:
    """Weights, coarse means and shrunk spectra for responsibilities (N, K)."""
    shares = shares[:, shares.sum(0) > 0.5]
    counts = shares.sum(0)
    means = torch.stack([(share.view(-1, 1, 1, 1) * latents).sum(0) for share in shares.T.to(latents)])
    means = _coarse(means.double() / counts.view(-1, 1, 1, 1))
    h, w, c = *latents.shape[-2:], latents.shape[1]
    spectra = torch.zeros(len(counts), h, w // 2 + 1, c, c, dtype=torch.complex128, device=latents.device)
    for part, share in zip(latents.split(64), shares.split(64), strict=True):
        f = _transformed(part)
        for k in (share > 1e-6).any(0).nonzero()[:, 0].tolist():
            own = share[:, k] > 1e-6
            e = (f[..., own] - _transformed(means[k : k + 1])) * share[own, k].sqrt()
            spectra[k] += e @ e.mH
    pooled = spectra.sum(0) / counts.sum()
    spectra = (spectra + shrinkage * pooled) / (counts + shrinkage).view(-1, 1, 1, 1, 1)
    return StationaryMixture(counts / counts.sum(), means, spectra)


def _coarse(means: Tensor) -> Tensor:
    """Means (K, C, h, w) by way of a grid of COARSE: few slices say nothing of their finer parts."""
    if min(means.shape[-2:]) <= COARSE:
        return means
    return interpolate(adaptive_avg_pool2d(means, COARSE), means.shape[-2:], mode="bicubic", align_corners=False)


def _kmeans(x: Tensor, components: int, generator: torch.Generator, steps: int = 30) -> Tensor:
    """One-hot memberships (N, K) of x (N, n): Lloyd's iterations from k-means++ (Arthur and Vassilvitskii, 2007)."""
    centres = x[torch.randint(len(x), (1,), generator=generator).to(x.device)]
    while len(centres) < min(components, len(x)):
        nearest = torch.cdist(x, centres).amin(1).square()
        if not bool(nearest.any()):
            break
        centres = torch.cat([centres, x[torch.multinomial(nearest.cpu(), 1, generator=generator).to(x.device)]])
    for _ in range(steps):
        member = torch.nn.functional.one_hot(torch.cdist(x, centres).argmin(1), len(centres)).to(x)
        member = member[:, member.sum(0) > 0]
        centres = (member.T @ x) / member.sum(0)[:, None]
    return member
