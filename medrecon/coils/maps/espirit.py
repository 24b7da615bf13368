"""ESPIRiT: coil sensitivity maps as eigenvectors of the calibration data's reproducing operator (Uecker 2014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrecon.coils.combine import relative_to_first
from medrecon.kspace.calibration import calibration_size
from medrecon.numerics.dominant import dominant_eigenvector
from medrecon.sampling.lines import centre

Acs = int | tuple[int, int] | None
_LIMIT = 24
"""Largest side of the calibration region by default, as in SigPy and BART."""
_TILE = {"cpu": 2**21, "cuda": 2**27}
"""Bytes of the pixels' C x C matrices held at a time: what fits the cache of a CPU core, what fills a GPU."""


def espirit(
    kspace: Tensor, acs: Acs = None, *, kernel: int = 6, threshold: float = 0.02, crop: float = 0.95, soft: bool = False
) -> Tensor:
    """Estimate coil sensitivity maps from the fully sampled centre of k-space; equal to SigPy's `EspiritCalib`.

    Args:
        kspace: (C, H, W) or (Z, C, H, W), 0 where not acquired.
        acs: calibration region, a width or (rows, columns); by default the largest fully sampled central rectangle,
            at most 24 x 24, found from the zeros of k-space.
        kernel: width of the k-space kernels.
        threshold: singular values of the calibration matrix over this part of the largest are signal.
        crop: maps are 0 where the eigenvalue is at most this.
        soft: let the maps fall to 0 between the eigenvalues crop and 2 crop - 1 instead.

    Returns:
        Maps shaped like kspace, complex64, sum over coils |S|^2 = 1 in the support and 0 outside (less than 1 in the
        margin of a soft crop); phase relative to coil 0.

    Raises:
        ValueError: no fully sampled centre of at least kernel + 2 samples, NaN, or a wrong shape.
    """
    maps, eigenvalues = espirit_eigenvalues(kspace, acs, kernel=kernel, threshold=threshold)
    if not soft:
        return maps.mul_((eigenvalues > crop).unsqueeze(-3))
    ramp = ((eigenvalues - (2 * crop - 1)) / max(1 - crop, 1e-6)).clamp(0, 1)
    return maps.mul_(torch.sin(ramp * math.pi / 2).square().unsqueeze(-3))


@torch.no_grad()
def espirit_eigenvalues(
    kspace: Tensor, acs: Acs = None, *, kernel: int = 6, threshold: float = 0.02, tile: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return maps without a crop, shaped like kspace, and the eigenvalue of every pixel, (H, W) or (Z, H, W).

    The eigenvalue is 1 where the coils see an object and its calibration explains them, less in the background.

    Args:
        tile: image rows worked on at a time; chosen by memory by default.
        others, errors: see `espirit`.
    """
    if kspace.ndim == 4:
        each = [espirit_eigenvalues(k, acs, kernel=kernel, threshold=threshold, tile=tile) for k in kspace]
        return torch.stack([maps for maps, _ in each]), torch.stack([values for _, values in each])
    calibration = _calibration(kspace, acs, kernel)
    coils, height, width = kspace.shape
    taps = _correlations(_signal_kernels(calibration, kernel, threshold), kernel).to(torch.complex64)
    down, across = (_waves(n, kernel, kspace.device).to(torch.complex64) for n in (height, width))
    step = tile or max(1, _TILE.get(kspace.device.type, 2**24) // (8 * width * coils**2))
    maps = torch.empty(kspace.shape, dtype=torch.complex64, device=kspace.device)
    eigenvalues = torch.empty((height, width), device=kspace.device)
    for part in (slice(start, min(start + step, height)) for start in range(0, height, step)):
        rows = torch.einsum("yd,deij->eyij", down[part], taps)
        matrices = (across @ rows.flatten(1)).reshape(-1, coils, coils)
        vectors, values = dominant_eigenvector(matrices)
        maps[:, part] = relative_to_first(vectors.T).reshape(coils, width, -1).mT
        eigenvalues[part] = values.reshape(width, -1).T
    return maps, eigenvalues


def _calibration(kspace: Tensor, acs: Acs, kernel: int) -> Tensor:
    """The calibration region (C, h, w), complex128."""
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(f"espirit: k-space is complex (C, H, W) or (Z, C, H, W), got {kspace.dtype} {[*kspace.shape]}")
    if not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise ValueError("espirit: k-space has NaN or infinite samples; set samples that were not acquired to 0")
    height, width = kspace.shape[-2:]
    acquired = kspace.abs().amax(0) > 0
    found = calibration_size(acquired, _LIMIT)
    rows, columns = found if acs is None else (acs, acs) if isinstance(acs, int) else acs
    fits = kernel + 2 <= rows <= height and kernel + 2 <= columns <= width
    if not fits or not bool(acquired[centre(height, rows), centre(width, columns)].all()):
        raise ValueError(
            f"espirit: calibration needs a fully sampled centre (ACS) of {max(rows, kernel + 2)} x "
            f"{max(columns, kernel + 2)} samples, found {found[0]} x {found[1]}; acquire or simulate ACS lines "
            "(about 24), give coil maps, or find them without (recon --maps nlinv)"
        )
    return kspace[:, centre(height, rows), centre(width, columns)].resolve_conj().to(torch.complex128)


def _signal_kernels(calibration: Tensor, kernel: int, threshold: float) -> Tensor:
    """Kernels (K, C, k, k) that span the calibration data: right singular vectors of its k x k blocks.

    From the smaller of the two Gram matrices of the block matrix: in float64 its eigenvalues, the squared singular
    values, are exact far below the threshold.
    """
    coils = len(calibration)
    blocks = calibration.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 3, 4)
    A = blocks.reshape(-1, coils * kernel**2)
    if len(A) < A.shape[1]:
        values, U = torch.linalg.eigh(A @ A.mH)
        kept = values > threshold**2 * values[-1]
        rows = (U[:, kept] / values[kept].sqrt()).mH @ A
    else:
        values, V = torch.linalg.eigh(A.mH @ A)
        rows = V[:, values > threshold**2 * values[-1]].mH
    return rows.reshape(-1, coils, kernel, kernel)


def _correlations(kernels: Tensor, kernel: int) -> Tensor:
    """R_ij(d) = sum over kernels and t of v_i(t + d) conj(v_j(t)) / k^2: (2k - 1, 2k - 1, C, C), d in FFT order.

    The matrix of a pixel, sum_k F v_k (F v_k)^H, is a trigonometric polynomial with these coefficients: no image of
    any kernel is needed.
    """
    taps = 2 * kernel - 1
    spectra = torch.fft.fft2(kernels, s=(taps, taps)).permute(2, 3, 1, 0)
    return torch.fft.ifft2(spectra @ spectra.mH, dim=(0, 1)) / kernel**2


def _waves(size: int, kernel: int, device: torch.device) -> Tensor:
    """exp(2 pi i d x / size), pixels x about the centre, d in FFT order: (size, 2k - 1)."""
    taps = 2 * kernel - 1
    d = torch.fft.fftfreq(taps, 1 / taps, dtype=torch.float64, device=device)
    angle = torch.outer(torch.arange(size, device=device) - size // 2, d) * (2 * math.pi / size)
    return torch.polar(torch.ones_like(angle), angle)
