"""Receiver noise: its covariance from a noise scan, and virtual coils in which it is white."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.core.noise import MRINoise

SIEMENS_BANDWIDTH = 0.79
"""Relative receiver noise bandwidth of Siemens receivers, for headers that do not state it."""
_DEAD = 1e-8


def noise_scale(data_dwell: float, noise_dwell: float, bandwidth: float = SIEMENS_BANDWIDTH) -> float:
    """Return what to divide a noise scan's variance by, so that it is that of the data (ISMRMRD's convention).

    A sample integrates for a dwell time, so its variance goes with 1 / dwell; the receiver's filter passes only
    `bandwidth` of the noise scan's nominal band.

    Args:
        data_dwell, noise_dwell: sample times of data and noise scan, any one unit.
        bandwidth: ISMRMRD's relativeReceiverNoiseBandwidth; 1 where the filter is flat over the whole band.
    """
    if not min(data_dwell, noise_dwell, bandwidth) > 0:
        raise ValueError(
            f"noise_scale: dwell times and bandwidth are positive, got {data_dwell}, {noise_dwell}, {bandwidth}"
        )
    return data_dwell / noise_dwell * bandwidth


def silent_coils(noise: Tensor) -> Tensor:
    """Return (C,), which coils of noise samples (C, S) have none to speak of beside the median of the others."""
    power = noise.abs().double().square().mean(1)
    alive = power[power > 0]
    return power <= (_DEAD * alive.median() if len(alive) else 0.0)


def noise_covariance(noise: Tensor, *, scale: float = 1.0) -> Tensor:
    """Estimate E[n n^H] (C, C), complex128, of noise samples (C, S) or (N, C, S), N readouts, of mean 0.

    Args:
        scale: `noise_scale` where the samples come from a noise scan of another bandwidth than the data.

    Raises:
        ValueError: a wrong shape, NaN, fewer than 2 C samples, or a coil without any noise (not connected).
    """
    if noise.ndim not in (2, 3) or not noise.is_complex():
        raise ValueError(f"noise_covariance: noise is complex (C, S) or (N, C, S), got {noise.dtype} {[*noise.shape]}")
    samples = noise.resolve_conj().movedim(-2, 0).flatten(1).to(torch.complex128)
    coils, count = samples.shape
    if count < 2 * coils:
        raise ValueError(
            f"noise_covariance: {count} noise samples of {coils} coils are too few; need at least "
            f"{2 * coils}, better a hundred times the coils (are the axes coil, sample?)"
        )
    if not bool(torch.isfinite(torch.view_as_real(samples)).all()):
        raise ValueError("noise_covariance: the noise scan has NaN or infinite samples; leave them out")
    covariance = samples @ samples.mH / (count * scale)
    if dead := silent_coils(samples).nonzero()[:, 0].tolist():
        raise ValueError(f"noise_covariance: coils {dead} have no noise: not connected? Leave them out of everything")
    return covariance


def whitening_matrix(covariance: Tensor, *, keep_units: bool = False) -> tuple[Tensor, float]:
    """Return W (C, C), complex128, with W Sigma W^H = sigma^2 I, and sigma: the noise of every virtual coil.

    Args:
        covariance: Sigma = L L^H, Hermitian (C, C); W = sigma L^-1.
        keep_units: sigma is that of the mean coil, sqrt(tr Sigma / C), so that data keep their size; else 1.

    Raises:
        ValueError: the covariance is not Hermitian or not positive definite.
    """
    MRINoise(covariance)  # its errors
    sigma = float(covariance.diagonal().real.mean().sqrt()) if keep_units else 1.0
    factor = torch.linalg.cholesky(covariance.to(torch.complex128))
    units = sigma * torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, units, upper=False), sigma


def whiten_coils(data: Tensor, maps: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Whiten data and maps: virtual coils with uncorrelated noise of E|n|^2 = 1, both times L^-1, covariance = L L^H.

    Args:
        data: k-space (..., C, H, W). maps: (..., C, H, W). covariance: (C, C) Hermitian, E[n n^H].

    Raises:
        ValueError: the covariance does not fit or is not positive definite.
    """
    coils = data.shape[-3]
    if covariance.shape != (coils, coils) or maps.shape[-3] != coils:
        raise ValueError(
            f"whiten_coils: data of {coils} coils, maps of {maps.shape[-3]}, covariance {tuple(covariance.shape)}"
        )
    matrix, _ = whitening_matrix(covariance)
    white, seen = (torch.einsum("ij,...jhw->...ihw", matrix.to(t), t) for t in (data, maps))
    return white, seen
