"""Where the slices of a scan lie: from positions and directions of its readouts to voxels in RAS mm.

The pixel n//2 of an image by a centred Fourier transform is where the encoding gradients are 0: the centre of the field
of view, which is the position that scanners give. Ours are images by the inverse transform; where a vendor's directions
are for the forward one (`mirrored`; Siemens, as PTB-MR/mrpro#833 found too), readout and phase encode run backwards.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.kspace.readouts import Index, Readouts

log = logging.getLogger(__name__)

Vector = NDArray[np.float64]
SAME_PLACE = 0.01
"""Distance [mm] of readouts that lie at one place."""
FARTHEST = 3000.0
"""From the middle of a scanner [mm]."""
PARALLEL = 1e-3
"""Differences of unit vectors that count as none."""
SQUARE = 0.02
"""Deviation from right angles and unit length that counts as none."""
EVEN = 0.02
"""Differences of the slice distance that count as none, relative, and mm on top."""

LEAST_STEP = 0.005
"""Of the thickness: slices nearer to each other than this are none; metres are."""
STEEP = 0.1
"""Of the distance of two slices, how much at least is along their normal."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice, or a slab: its counter in the file, centre [LPS mm], and the unit vectors (readout, phase, slice) that
    the image's indices increase along, in rows. `known`: the file has them."""

    counter: int
    centre: Vector
    axes: Vector
    known: bool


def ordered_slices(lines: Readouts, image: Index, mirrored: bool) -> list[Slice]:
    """Return the slices of the lines `image`, along their normal, or as they were counted where that differs.

    A slice lies where most of its readouts say.

    Raises:
        ValueError: positions or directions that cannot be, and of which line.
    """
    slices = []
    for counter in np.unique(lines.counters["slice"][image]).tolist():
        own = image[lines.counters["slice"][image] == counter]
        slices.append(_slice(lines, int(own[int(_distances(lines, own).sum(1).argmin())]), counter, mirrored))
    normal = slices[0].axes[2]
    if all(np.abs(s.axes - slices[0].axes).max() < PARALLEL for s in slices):
        slices.sort(key=lambda s: float(s.centre @ normal))
    return slices


def check_places(lines: Readouts, image: Index, slices: list[Slice], source: object) -> dict[str, Any]:
    """Return, for the provenance, how many readouts lie elsewhere than their slice, and warn of them.

    These have a damaged header, or the scanner followed the patient. `source` is the file's name.

    Raises:
        ValueError: a slice whose readouts do not agree for the most part, and which ones.
    """
    found = {}
    for s in slices:
        own = image[lines.counters["slice"][image] == s.counter]
        off = _distances(lines, own)
        far = (off[:, 0] > SAME_PLACE) | (off[:, 1] > PARALLEL)
        if not far.any():
            continue
        first = int(np.argmax(far))
        told = f"readout {own[first]}, {off[first, 0]:.3g} mm away, its directions {off[first, 1]:.2g} off"
        if 2 * far.sum() >= len(own):
            raise ValueError(
                f"slice {s.counter}: its readouts lie at several places ({told}): did the scanner follow the patient "
                "(prospective motion correction)? Write the one place that the image shall have into all readouts, or "
                "leave the slice out with slices"
            )
        found[str(s.counter)] = int(far.sum())
        text = (
            "%s: slice %d: %d of its %d readouts lie elsewhere (%s): a damaged header, or a scanner that followed the "
        )
        text += "patient; the image lies where most readouts do"
        log.warning(text, source, s.counter, found[str(s.counter)], len(own), told)
    return {"readouts_elsewhere": found} if found else {}


def _distances(lines: Readouts, own: Index) -> Vector:
    """(n, 2) of each line: how far [mm] it is from the median position of all, and from their median directions."""
    position, directions = lines.position[own], lines.directions[own].reshape(-1, 9)
    finite = np.isfinite(position).all(1) & np.isfinite(directions).all(1)
    if not finite.all():
        line = own[int(np.argmin(finite))]
        raise ValueError(f"readout {line}: its position or directions are NaN or infinite; the file is damaged")
    away = np.linalg.norm(position - np.median(position, axis=0), axis=1)
    return np.stack([away, np.abs(directions - np.median(directions, axis=0)).max(1)], axis=1)


def unplaced(slices: list[Slice]) -> bool:
    """Tell whether the file lacks the positions: several slices, all at 0."""
    return len(slices) > 1 and not any(s.centre.any() for s in slices)


def side_by_side(slices: list[Slice], thickness: float) -> list[Slice]:
    """Return slices without positions as neighbours, the first at 0."""
    return [replace(s, centre=s.axes[2] * thickness * i) for i, s in enumerate(slices)]


def slice_step(slices: list[Slice], thickness: float) -> Vector:
    """From one slice to the next [LPS mm]; a single one is `thickness` thick.

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
    if len(slices) == 1:
        return slices[0].axes[2] * thickness
    centres = np.array([s.centre for s in slices])
    mean = np.asarray((centres[-1] - centres[0]) / (len(slices) - 1))
    distance, across = float(np.linalg.norm(mean)), abs(float(mean @ slices[0].axes[2]))
    neighbours = f"slices {slices[0].counter} and {slices[1].counter}"
    if distance < 1e-3:
        raise ValueError(f"{neighbours} lie at the same place")
    off = np.linalg.norm(centres - centres[0] - np.arange(len(slices))[:, None] * mean, axis=1)
    if off.max() > EVEN * (1 + distance):
        lengths = [round(float(np.linalg.norm(s)), 2) for s in np.diff(centres, axis=0)]
        raise ValueError(
            f"the slices are unevenly spaced ({lengths} mm), or shifted in their plane: slice "
            f"{slices[int(off.argmax())].counter} lies {off.max():.3g} mm beside its place in an even stack; read a "
            "part of them that is even"
        )
    if slices[0].known and across < max(LEAST_STEP * thickness, STEEP * distance):
        raise ValueError(
            f"{neighbours} lie {distance:.3g} mm apart, but only {across:.3g} mm along their normal, and are "
            f"{thickness:g} mm thick: are the positions in mm? Read one slice at a time, such as slices 0:1"
        )
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
    if np.abs(centre).max() > FARTHEST:
        raise ValueError(
            f"readout {line}: its position {centre.round(3).tolist()} mm is farther away than any scanner is large"
        )
    if not axes.any():
        return Slice(counter, centre, np.eye(3)[[1, 0, 2]], False)
    if np.abs(axes @ axes.T - np.eye(3)).max() > SQUARE:
        raise ValueError(
            f"readout {line}: its directions {axes.round(3).tolist()} are not three unit vectors at right angles"
        )
    sign = np.array([-1.0, -1.0, 1.0] if mirrored else [1.0, 1.0, 1.0])
    return Slice(counter, centre, axes / np.linalg.norm(axes, axis=1)[:, None] * sign[:, None], True)
