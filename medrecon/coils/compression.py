"""Coil compression: fewer virtual coils that keep the signal, by SVD (Buehrer 2007) or geometric (Zhang 2013)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.numerics.fourier import centred_fft, centred_ifft


@dataclass(frozen=True, eq=False)
class CoilCompression:
    """Virtual coils as combinations of the real ones, with orthonormal rows: white noise stays white and as large.

    Attributes:
        matrix: (V, C), or (H, V, C), one for every image row (readout position).
        energy: (V,) part of the calibration data's energy in each virtual coil.
    """

    matrix: Tensor
    energy: Tensor

    @property
    def retained(self) -> float:
        """Return the part of the energy, noise included, that all virtual coils keep together."""
        return float(self.energy.sum())

    def images(self, images: Tensor) -> Tensor:
        """Compress coil images or maps, (..., C, H, W) -> (..., V, H, W)."""
        matrix = self._fit(images)
        return torch.einsum("vc,...chw->...vhw" if matrix.ndim == 2 else "hvc,...chw->...vhw", matrix, images)

    def kspace(self, kspace: Tensor) -> Tensor:
        """Compress k-space, (..., C, H, W) -> (..., V, H, W), zeros staying zeros."""
        if self.matrix.ndim == 2:
            return self.images(kspace)
        return centred_fft(self.images(centred_ifft(kspace, -2)), -2)

    def covariance(self, covariance: Tensor) -> Tensor:
        """Bring the noise covariance (C, C) of the coils to the virtual ones, (V, V) or (H, V, V)."""
        matrix = self.matrix.to(covariance)
        return matrix @ covariance @ matrix.mH

    def _fit(self, x: Tensor) -> Tensor:
        coils, rows = self.matrix.shape[-1], len(self.matrix) if self.matrix.ndim == 3 else x.shape[-2]
        if x.ndim < 3 or x.shape[-3] != coils or x.shape[-2] != rows:
            raise ValueError(f"CoilCompression: made for {coils} coils (and {rows} rows), got {tuple(x.shape)}")
        return self.matrix.to(x)


def compress(kspace: Tensor, coils: int | None = None, *, energy: float = 0.99) -> tuple[Tensor, CoilCompression]:
    """Compress k-space (..., C, H, W) to its principal coils (..., V, H, W), strongest first, by one matrix for all.

    Args:
        kspace: 0 where not acquired; whitened, or loud coils count for more than they tell.
        coils: V; by default as few as keep `energy` of the signal.

    Raises:
        ValueError: not 1 <= coils <= C, NaN, a wrong shape, or no signal.

    Source: Buehrer et al., Magn. Reson. Med. 57 (2007) 1131; Huang et al., Magn. Reson. Imaging 26 (2008) 133.
    """
    _check(kspace, coils, energy)
    values, vectors = _principal(kspace.movedim(-3, 0).flatten(1))
    part = values / values.sum()
    count = _count(part, energy) if coils is None else coils
    found = CoilCompression(vectors[:, :count].mH.to(kspace.dtype), part[:count])
    return found.kspace(kspace), found


def compress_geometric(
    kspace: Tensor, coils: int | None = None, *, energy: float = 0.99, window: int = 1
) -> tuple[Tensor, CoilCompression]:
    """Compress k-space (..., C, H, W) to virtual coils (..., V, H, W) of their own at every readout position (row).

    Coils see a thin slab across the readout with fewer degrees of freedom than the whole image, so that fewer
    virtual coils keep the same energy. The frames of neighbouring rows are aligned from the middle outwards: virtual
    coils, and with them maps, are smooth along the readout (Zhang 2013, eq. 8).

    Args:
        kspace: readout (axis -2) not undersampled: each phase-encoding line whole or 0. One matrix for the batch.
        coils: V; by default as few as keep `energy` of the signal.
        window: rows (odd) that share their data, for a steadier frame where there is little signal.

    Raises:
        ValueError: as `compress`; also a readout that is undersampled, or an even window.

    Source: Zhang et al., Magn. Reson. Med. 69 (2013) 571.
    """
    _check(kspace, coils, energy)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"compress_geometric: the window has an odd number of rows, got {window}")
    acquired = (kspace != 0).flatten(0, -3).any(0)
    if not torch.equal(acquired, acquired.any(1, keepdim=True) & acquired.any(0, keepdim=True)):
        raise ValueError("compress_geometric: the readout (axis -2) is undersampled; use compress, or swap the axes")
    hybrid = centred_ifft(kspace, -2).movedim((-2, -3), (0, 1)).flatten(2).to(torch.complex128)  # (H, C, samples)
    gram = hybrid @ hybrid.mH
    smooth = torch.nn.functional.pad(gram, (0, 0, 0, 0, window // 2, window // 2)).unfold(0, window, 1).sum(-1)
    values, vectors = torch.linalg.eigh(smooth)
    values, frames = values.flip(-1).clamp_min(0), vectors.flip(-1).mH
    count = _count(values.sum(0) / values.sum(), energy) if coils is None else coils
    aligned = _aligned(frames[:, :count])
    kept = (aligned @ gram @ aligned.mH).diagonal(dim1=-2, dim2=-1).real.sum(0)
    total = gram.diagonal(dim1=-2, dim2=-1).real.sum()
    found = CoilCompression(aligned.to(kspace.dtype), kept / total)
    return found.kspace(kspace), found


def _aligned(frames: Tensor) -> Tensor:
    """Frames (H, V, C), each turned by the unitary matrix that brings it nearest to its inner neighbour's."""
    aligned, middle = frames.clone(), len(frames) // 2
    for here in [*range(middle + 1, len(frames)), *range(middle - 1, -1, -1)]:
        inner = here - 1 if here > middle else here + 1
        U, _, Vh = torch.linalg.svd(aligned[inner] @ frames[here].mH)
        aligned[here] = (U @ Vh) @ frames[here]
    return aligned


def _principal(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Energies, largest first, and directions (C, C) of the columns of samples (C, S)."""
    samples = samples.resolve_conj()
    gram = torch.zeros((len(samples), len(samples)), dtype=torch.complex128, device=samples.device)
    for chunk in samples.split(2**20, 1):  # a volume in float64 need not fit
        chunk = chunk.to(torch.complex128)
        gram += chunk @ chunk.mH
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def _count(part: Tensor, energy: float) -> int:
    """As few coils as keep `energy`."""
    return min(len(part), 1 + int((part.cumsum(0) < energy * (1 - 1e-12)).sum()))


def _check(kspace: Tensor, coils: int | None, energy: float) -> None:
    if kspace.ndim < 3 or not kspace.is_complex():
        raise ValueError(f"compress: k-space is complex (..., C, H, W), got {kspace.dtype} {tuple(kspace.shape)}")
    if coils is not None and not 1 <= coils <= kspace.shape[-3]:
        raise ValueError(f"compress: between 1 and {kspace.shape[-3]} virtual coils of as many real ones, got {coils}")
    if not 0 < energy <= 1:
        raise ValueError(f"compress: the energy to keep is between 0 and 1, got {energy}")
    if not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise ValueError("compress: k-space has NaN or infinite samples; set samples that were not acquired to 0")
    if not bool((kspace != 0).any()):
        raise ValueError("compress: k-space has no signal: every sample is 0")
