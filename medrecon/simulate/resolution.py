"""An MR image at a lower resolution: as a scanner would see it that goes less far out in k-space."""

from __future__ import annotations

from dataclasses import replace

import torch

from medrecon.core.volume import Volume
from medrecon.numerics.fourier import centred_fft, centred_ifft, crop_or_pad


def lower_resolution(volume: Volume, size: int) -> Volume:
    """A magnitude volume of `size` rows over the same field of view, its columns in proportion: the centre of k-space.

    The voxels are cut out of k-space, so edges ring as they do on a scanner. Mean and intensities stay; zero frequency
    belongs to voxel n // 2 before and after, so for even numbers the middle of the first voxel stays where it is.

    Raises:
        ValueError: a size that is not in the range 8 .. rows of the volume, or values that are no magnitudes.
    """
    rows, columns = volume.data.shape[-2:]
    if not 8 <= size <= rows:
        raise ValueError(f"size: must be between 8 and the {rows} rows of the image, got {size}")
    if volume.data.is_complex():
        raise ValueError("size: the volume is complex; give its magnitude")
    if size == rows:
        return volume
    shape = (size, max(1, round(columns * size / rows)))
    gain = (shape[0] * shape[1] / (rows * columns)) ** 0.5
    parts = [
        centred_ifft(crop_or_pad(centred_fft(image.to(torch.complex64)), shape)).abs() * gain
        for image in volume.data.float().clamp_min(0)
    ]
    affine = volume.affine.clone()
    for axis, (old, new) in enumerate(((columns, shape[1]), (rows, shape[0]))):  # x runs along the columns
        ratio = old / new
        affine[:3, axis] = volume.affine[:3, axis] * ratio
        affine[:3, 3] += volume.affine[:3, axis] * (old // 2 - (new // 2) * ratio)
    return replace(volume, data=torch.stack(parts), affine=affine)
