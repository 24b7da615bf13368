"""Adaptive coil combination: sensitivity maps from the local correlation of coil images (Walsh 2000)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrecon.coils.combine import relative_to_first
from medrecon.numerics.dominant import dominant_eigenvector

_TILE = {"cpu": 2**22, "cuda": 2**27}
"""Bytes of the neighbourhoods held at a time."""


@torch.no_grad()
def walsh_maps(images: Tensor, *, window: int = 7, threshold: float = 0.0, tile: int | None = None) -> Tensor:
    """Estimate coil maps from coil images: the matched filter of each neighbourhood (Walsh 2000, eq. 11).

    Of undersampled k-space take the centre: `walsh_maps(acs_images(kspace))`. Of correlated noise: whiten before.

    Args:
        images: (C, H, W) or (Z, C, H, W), complex.
        window: odd side of the square over which correlations m m^H are summed; it ends at the image's edge.
        threshold: maps are 0 where the local signal is at most this part of its maximum; 0: maps everywhere.
        tile: image rows worked on at a time; chosen by memory by default.

    Returns:
        Maps shaped like images, complex64, sum over coils |S|^2 = 1 (0 outside); phase relative to coil 0.

    Raises:
        ValueError: a wrong shape, an even window, NaN, or images without any signal.
    """
    if images.ndim == 4:
        return torch.stack([walsh_maps(i, window=window, threshold=threshold, tile=tile) for i in images])
    _check(images, window)
    coils, height, width = images.shape
    half = window // 2
    padded = torch.nn.functional.pad(images.resolve_conj().to(torch.complex64), (half, half, half, half))
    # Of order 1: squares of raw scanner units, about 1e-6, would leave float32.
    padded = padded / padded.abs().max()
    step = tile or max(1, _TILE.get(images.device.type, 2**24) // (8 * width * coils * window**2))
    maps = torch.empty(images.shape, dtype=torch.complex64, device=images.device)
    energy = torch.empty((height, width), device=images.device)
    for part in (slice(start, min(start + step, height)) for start in range(0, height, step)):
        near = padded[:, part.start : part.stop + 2 * half].unfold(1, window, 1).unfold(2, window, 1)
        near = near.permute(1, 2, 0, 3, 4).reshape(-1, coils, window**2)
        vectors, values = dominant_eigenvector(near @ near.mH)
        maps[:, part] = relative_to_first(vectors.T).reshape(coils, -1, width)
        energy[part] = values.reshape(-1, width)
    return maps * (energy > threshold**2 * energy.max())


def _check(images: Tensor, window: int) -> None:
    if images.ndim != 3 or not images.is_complex():
        raise ValueError(
            f"walsh_maps: images are complex (C, H, W) or (Z, C, H, W), got {images.dtype} {[*images.shape]}"
        )
    if window < 1 or window % 2 == 0:
        raise ValueError(f"walsh_maps: the window has an odd number of pixels, got {window}")
    if not bool(torch.isfinite(torch.view_as_real(images.resolve_conj())).all()):
        raise ValueError("walsh_maps: images have NaN or infinite pixels; set them to 0")
    if not bool((images != 0).any()):
        raise ValueError("walsh_maps: the images have no signal: every pixel is 0")
