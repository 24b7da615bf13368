"""Where the slices of a scan lie: from positions and directions of its readouts to voxels in RAS mm.

The pixel n//2 of an image by a centred Fourier transform is where the encoding gradients are 0: the centre of the field
of view, which is the position that scanners give. Ours are images by the inverse transform; where a vendor's directions
are for the forward one (`mirrored`; Siemens, as PTB-MR/mrpro#833 found too), readout and phase encode run backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.kspace.readouts import Index, Readouts

Vector = NDArray[np.float64]
PARALLEL = 1e-3
"""Differences of unit vectors that count as none."""
SQUARE = 0.02
"""Deviation from right angles and unit length that counts as none."""
EVEN = 0.02
"""Differences of the slice distance that count as none, relative, and mm on top."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice, or a slab: its counter in the file, centre [LPS mm], and the unit vectors (readout, phase, slice) that
    the image's indices increase along, in rows. `known`: the file has them."""

    counter: int
    centre: Vector
    axes: Vector
    known: bool


def ordered_slices(lines: Readouts, image: Index, mirrored: bool) -> list[Slice]:
    """The slices of the lines `image`, along their normal, or as they were counted where that differs.

    Raises:
        ValueError: positions or directions that cannot be, and of which line.
    """
    counters, first = np.unique(lines.counters["slice"][image], return_index=True)
    slices = [_slice(lines, int(image[i]), int(c), mirrored) for c, i in zip(counters, first)]
    normal = slices[0].axes[2]
    if all(np.abs(s.axes - slices[0].axes).max() < PARALLEL for s in slices):
        slices.sort(key=lambda s: float(s.centre @ normal))
    return slices


def unplaced(slices: list[Slice]) -> bool:
    """Tell whether the file lacks the positions: several slices, all at 0."""
    return len(slices) > 1 and not any(s.centre.any() for s in slices)


def slice_step(slices: list[Slice], thickness: float) -> Vector:
    """From one slice to the next [LPS mm]; a single one, and those without positions, are `thickness` thick.

    Raises:
        ValueError: slices of several orientations, unevenly spaced, at one place, or along another direction than
            axial where the file has no directions.
    """
    for s in slices:
        if np.abs(s.axes - slices[0].axes).max() >= PARALLEL:
            raise ValueError(
                f"slices {slices[0].counter} and {s.counter} have different orientations; read those of "
                "one orientation, such as slices 0:1"
            )
    if len(slices) == 1 or unplaced(slices):
        return slices[0].axes[2] * thickness
    steps = np.diff([s.centre for s in slices], axis=0)
    mean = steps.mean(0)
    if np.linalg.norm(mean) < 1e-3:
        raise ValueError(f"slices {slices[0].counter} and {slices[1].counter} lie at the same place")
    if np.abs(steps - mean).max() > EVEN * (1 + float(np.linalg.norm(mean))):
        lengths = [round(float(np.linalg.norm(s)), 2) for s in steps]
        raise ValueError(f"the slices are unevenly spaced ({lengths} mm); read a part of them that is even")
    if not slices[0].known and np.linalg.norm(np.cross(mean, slices[0].axes[2])) > EVEN * np.linalg.norm(mean):
        raise ValueError(
            f"the readouts have no directions, and their positions follow {mean.round(2).tolist()} (LPS mm), which is "
            "not axial; write the directions into the file, or read one slice at a time, such as slices 0:1"
        )
    return mean


def affine(centre: Vector, steps: tuple[Vector, Vector, Vector], at: tuple[int, int, int]) -> Tensor:
    """(4, 4) float64, voxel (column, row, slice) to RAS mm, of steps [LPS mm] in this order; voxel `at` is `centre`."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(steps, axis=1)
    matrix[:3, 3] = centre - matrix[:3, :3] @ np.array(at)
    return torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix)


def _slice(lines: Readouts, line: int, counter: int, mirrored: bool) -> Slice:
    axes, centre = lines.directions[line], lines.position[line]
    if not (np.isfinite(axes).all() and np.isfinite(centre).all()):
        raise ValueError(f"readout {line}: its position or directions are NaN or infinite; the file is damaged")
    if not axes.any():
        return Slice(counter, centre, np.eye(3)[[1, 0, 2]], False)
    if np.abs(axes @ axes.T - np.eye(3)).max() > SQUARE:
        raise ValueError(
            f"readout {line}: its directions {axes.round(3).tolist()} are not three unit vectors at right angles"
        )
    sign = np.array([-1.0, -1.0, 1.0] if mirrored else [1.0, 1.0, 1.0])
    return Slice(counter, centre, axes / np.linalg.norm(axes, axis=1)[:, None] * sign[:, None], True)
