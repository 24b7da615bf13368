"""What CartesianMRI refuses: maps, masks and phases that do not fit, and what to do about it."""

from __future__ import annotations

import torch
from torch import Tensor


def validate(maps: Tensor, mask: Tensor) -> None:
    """Raise ValueError for maps (C, H, W) or (B, C, H, W) and a mask (H, W) or (B, H, W) that make no operator."""
    if maps.dtype not in (torch.complex64, torch.complex128) or maps.ndim not in (3, 4):
        raise ValueError(
            "CartesianMRI: maps are complex (C, H, W) or (B, C, H, W), complex64 or complex128, "
            f"got {maps.dtype} {tuple(maps.shape)}"
        )
    if mask.is_complex() or mask.ndim not in (2, 3) or mask.shape[-2:] != maps.shape[-2:]:
        raise ValueError(
            f"CartesianMRI: mask must be real (H, W) or (B, H, W) with the H, W of maps {tuple(maps.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}{_remedy(maps, mask)}"
        )
    if maps.ndim == 4 and mask.ndim == 3 and 1 != len(mask) != len(maps) != 1:
        raise ValueError(f"CartesianMRI: {len(maps)} sets of maps but {len(mask)} masks; give one of each an item")
    # A sum is infinite or NaN when a value is, and needs no memory.
    if not bool(torch.isfinite(maps.detach().resolve_conj().sum())):
        raise ValueError("CartesianMRI: maps have NaN or infinite values; set them to 0 outside the support")
    if not bool(torch.isfinite(mask.double()).all()):
        raise ValueError("CartesianMRI: mask has NaN or infinite values")
    if not bool((mask != 0).flatten(-2).any(-1).all()):
        raise ValueError("CartesianMRI: the mask has no sample; nothing was measured")


def _remedy(maps: Tensor, mask: Tensor) -> str:
    """What went wrong most likely, for the end of a message."""
    if maps.shape[-3:-1] == mask.shape[-2:]:
        return "; these maps look like (H, W, C): give maps.movedim(-1, -3)"
    if mask.ndim == 1 and len(mask) == maps.shape[-1]:
        return f"; for a mask of columns give mask.expand({maps.shape[-2]}, {maps.shape[-1]})"
    if mask.shape[-2:] == maps.shape[-2:][::-1]:
        return "; the mask looks transposed: give mask.mT"
    return ""


def unit_phase(phase: Tensor, maps: Tensor) -> Tensor:
    """Return the phase (1 or B, H, W) with modulus 1 to rounding, in the precision of the maps."""
    shape = maps.shape[-2:]
    if not phase.is_complex() or phase.ndim not in (2, 3) or phase.shape[-2:] != shape:
        raise ValueError(
            f"CartesianMRI: phase must be complex e^(i phi) of shape {tuple(shape)} or (B, {shape[0]}, {shape[1]}), "
            f"got {phase.dtype} {tuple(phase.shape)}; from radians make torch.polar(torch.ones_like(phi), phi)"
        )
    size = phase.detach().to(torch.complex128).abs()
    if not bool(((size - 1).abs() < 1e-4).all()):  # false for NaN as well
        raise ValueError("CartesianMRI: phase must have modulus 1 at every pixel, and no NaN; give phase / phase.abs()")
    if phase.ndim == 3 and 1 != len(phase) != len(maps) != 1:
        raise ValueError(f"CartesianMRI: {len(maps)} sets of maps but {len(phase)} phases; give one of each an item")
    return (phase.detach().resolve_conj() / size).to(maps.dtype).reshape(-1, *shape)
