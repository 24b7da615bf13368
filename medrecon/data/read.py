"""The pixels of a case as int16, with the scale that was taken out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.data import sheets
from medrecon.data.cases import Case
from medrecon.data.manifest import Manifest
from medrecon.data.values import COUNTS, counts, magnitude_scale


@dataclass(frozen=True)
class Stored:
    """data (N, H, W) int16; value in the data set's own units = data * slope * scale.

    slope is 1 for HU and 1/COUNTS for all else; scale is the 99.9th percentile of an MR volume, else 1. `clipped`
    counts the voxels that int16 could not hold.
    """

    data: Tensor
    scale: float
    clipped: int


def slope(manifest: Manifest) -> float:
    """Value per stored count, before the scale of the volume."""
    return 1.0 if manifest.units == "HU" else 1 / COUNTS


def read_case(case: Case, manifest: Manifest) -> Stored:
    """All slices of a volume; in memory, one volume at a time.

    Sheets are taken as scaled already; other magnitudes and attenuations are divided by the volume's 99.9th percentile.

    Raises:
        ValueError, OSError: names the file that cannot be read, or is of another modality or unit.
    """
    if manifest.kind == "sheets":
        data, scale = _sheet(case, manifest), 1.0
    else:
        data = torch.cat(list(_slices(case, manifest)))
        try:
            scale = 1.0 if manifest.units == "HU" else magnitude_scale(data)
        except ValueError as error:
            raise ValueError(f"{case.name}: {error}") from error
    if manifest.units != "HU":
        data = data * (COUNTS / scale)
    clipped = int(((data > 32767) | (data < -32768)).sum())
    return Stored(counts(data), scale, clipped)


def _sheet(case: Case, manifest: Manifest) -> Tensor:
    (path,) = case.files
    pixels = sheets.frames(path)
    if max(case.frames) >= len(pixels):
        raise ValueError(f"{path}: shape {pixels.shape} does not hold the frames {case.frames[-1]} of index.tsv")
    frames = torch.from_numpy(pixels[list(case.frames)].astype(np.float32))
    return frames * manifest.slope + manifest.intercept


def _slices(case: Case, manifest: Manifest) -> Iterator[Tensor]:
    from medrecon import formats

    for path in case.files:
        volume = formats.read(path, modality=manifest.modality)
        if (volume.modality, volume.units) != (manifest.modality, manifest.units):
            raise ValueError(
                f"{path}: {volume.modality} in {volume.units}, but {manifest.path} says "
                f"{manifest.modality} in {manifest.units}"
            )
        yield (volume.data.abs() if volume.data.is_complex() else volume.data).float()
