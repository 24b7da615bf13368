"""Where the voxels are of formats that do not tell it: shown like an axial slice, about the middle of the scanner.

Which pixel is the middle depends on the physics. A CT image is centred on the rotation axis, and its grid is symmetric
about it: index (n - 1) / 2. An MR image is an inverse FFT of centred k-space, whose origin is pixel n // 2: half a
pixel further where n is even.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_axis_affine(shape: tuple[int, int], pixel: float, slice_pitch: float) -> Tensor:
    """Return the (4, 4) affine of a CT image of square pixels [mm], the rotation axis, index (n - 1) / 2, at x = y = 0.

    The first slice is at z = 0.
    """
    height, width = shape
    return _axial((pixel, pixel), slice_pitch, ((height - 1) / 2, (width - 1) / 2), 0.0)


def isocentre_affine(
    shape: tuple[int, int], pixel: tuple[float, float], slice_pitch: float, slices: int, slab: bool = False
) -> Tensor:
    """Return the (4, 4) affine of an MR image, the centre of the gradients, pixel n // 2, at x = y = 0.

    The middle of the slices is at z = 0; of a slab that a transform made into slices, slice n // 2.

    Args:
        pixel: row and column step [mm].
        slice_pitch: [mm].
    """
    height, width = shape
    return _axial(pixel, slice_pitch, (height // 2, width // 2), slices // 2 if slab else (slices - 1) / 2)


def moved(affine: Tensor, slices: int) -> Tensor:
    """Return the affine of a volume without its first slices."""
    affine = affine.clone()
    affine[:3, 3] += affine[:3, 2] * slices
    return affine


def _axial(pixel: tuple[float, float], pitch: float, centre: tuple[float, float], middle: float) -> Tensor:
    """Voxel to RAS mm: columns run to the patient's left, rows to the back; `centre` (row, column) is at x = y = 0."""
    row, column = pixel
    affine = torch.diag(torch.tensor([-column, -row, pitch, 1.0], dtype=torch.float64))
    affine[0, 3], affine[1, 3], affine[2, 3] = column * centre[1], row * centre[0], 0.0 - pitch * middle
    return affine
