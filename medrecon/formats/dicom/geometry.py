"""Where the frames of a stack are: in order, on a regular grid or not, and the affine of the grid."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medrecon.formats.dicom.frames import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_GRID = 0.1  # of a pixel: how far two slices of one grid may be apart at their last pixel
UNEVEN = 0.06  # of the slice step: headers round positions by 3 %
OFF_LINE = 0.1  # of the slice step
ROUNDING = 0.02  # of a pixel: what else is rounding
PLANES = ("sagittal", "coronal", "axial")
STEEPEST = 45.0
"""Degrees of tilt up to which slices are those of a tilted gantry, which has 30 at most."""


def same_grid(a: Frame, b: Frame) -> bool:
    """Tell whether two frames have pixels of one size in one orientation, but for rounding in their headers."""
    sizes = [(f.header.Rows, f.header.Columns) for f in (a, b)]
    if sizes[0] != sizes[1]:
        return False
    drift = np.linalg.norm(a.steps - b.steps, axis=1) @ np.array(sizes[0][::-1], dtype=np.float64)
    return bool(drift < SAME_GRID * np.linalg.norm(a.steps, axis=1).min())


def in_order(frames: Sequence[Frame]) -> list[Frame]:
    """Return frames in order along the normal of the first."""
    return [frames[i] for i in np.argsort(heights(frames), kind="stable")]


def positions(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return the LPS positions in mm, (n, 3)."""
    return np.array([frame.position for frame in frames])


def heights(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return the positions in mm along the normal of the first frame, (n,)."""
    return np.asarray(positions(frames) @ frames[0].normal)


def doubled(ordered: Sequence[Frame]) -> NDArray[np.intp]:
    """Return the indices of frames that the next one shares its place with."""
    return np.flatnonzero(np.diff(heights(ordered)) < _rounding(ordered))


def _rounding(frames: Sequence[Frame]) -> float:
    return float(ROUNDING * np.linalg.norm(frames[0].steps, axis=1).min())


def irregularity(ordered: Sequence[Frame]) -> tuple[str, list[int]]:
    """Return what is wrong with the places of a stack, and before which frames it can be cut into regular runs."""
    if len(ordered) == 1:
        return "", []
    if (same := doubled(ordered)).size:
        a, b = ordered[same[0]], ordered[same[0] + 1]
        return f"two slices at one position: {a} and {b} ({same.size} such pair(s)); remove one of each", []
    steps = np.diff(heights(ordered))
    step = float(np.median(steps))
    slack = UNEVEN * step + _rounding(ordered)
    if (wide := np.flatnonzero(np.abs(steps - step) > slack)).size:
        return _uneven(ordered, steps, wide, slack)
    places = positions(ordered)
    line = places[0] + np.arange(len(ordered))[:, None] * (places[-1] - places[0]) / (len(ordered) - 1)
    off = np.linalg.norm(places - line, axis=1)
    if off.max() > (most := max(OFF_LINE * step, _rounding(ordered))):
        text = f"slices are not on a line: {ordered[int(off.argmax())]} is {off.max():.2f} mm off"
        moves = np.diff(places, axis=0)
        bent = np.linalg.norm(moves - np.median(moves, axis=0), axis=1) > most
        return text, [int(i) + 1 for i in np.flatnonzero(bent)]
    return "", []


def _uneven(
    ordered: Sequence[Frame], steps: NDArray[np.float64], wide: NDArray[np.intp], slack: float
) -> tuple[str, list[int]]:
    i, step = int(wide[0]), float(np.median(steps))
    between = f"between slice {i} ({ordered[i]}) and slice {i + 1} ({ordered[i + 1]}): {steps[i]:.3f} mm, "
    between += f"not {step:.3f}"
    missing = round(steps[i] / step) - 1
    if missing > 0 and abs(steps[i] / step - missing - 1) < 0.1:
        first = float(ordered[i].position @ ordered[i].normal)
        at = [round(first + step * (k + 1), 2) for k in range(min(missing, 5))]
        more = ", ..." if missing > 5 else ""
        text = f"{missing} slice(s) missing, index {i + 1}, at {at}{more} mm along the normal, {between}"
        return text, [int(w) + 1 for w in wide]
    return f"slice spacing is not uniform {between}", _cuts(steps, slack)


def _cuts(steps: NDArray[np.float64], slack: float) -> list[int]:
    """Indices where the spacing changes, so that the runs between them are uniform."""
    cuts, start = [], 0
    for i in range(1, len(steps)):
        if i > start and abs(steps[i] - steps[start]) > slack:
            cuts.append(i + 1)
            start = i + 1
    return cuts


def affine(ordered: Sequence[Frame]) -> Tensor:
    """Return voxel (column, row, slice) to RAS mm, float64 (4, 4), of frames in order along their normal.

    The slice axis is the mean step between image positions, so the shear of a tilted gantry stays in the affine.
    """
    first, places = ordered[0], positions(ordered)
    count = len(ordered) - 1
    step = (places[-1] - places[0]) / count if count else first.normal * _height(first)
    matrix = np.eye(4)
    matrix[:3] = np.stack([*first.steps, step, places[0]], axis=1)
    tilt = np.degrees(np.arccos(np.clip(step @ first.normal / np.linalg.norm(step), -1, 1)))
    if tilt > STEEPEST:
        raise ValueError(
            f"{first}: the slices lie {tilt:.0f} degrees beside their normal, and no gantry tilts so far; are these "
            "slices of one volume?"
        )
    if tilt > 0.1:
        log.info("%s: tilted by %.1f degrees; the affine keeps the shear, nothing is resampled", first, tilt)
    return torch.from_numpy(LPS_TO_RAS @ matrix)


def _height(frame: Frame) -> float:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            value = abs(float(frame.get(name) or 0))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{frame}: {name} is {frame.get(name)!r}, no number") from error
        if 0 < value < np.inf:
            return value
    log.warning("%s: one slice that tells neither its thickness nor a spacing; taken as 1 mm high", frame)
    return 1.0


def plane(ordered: Sequence[Frame]) -> str:
    """Return the plane nearest to the frames and how far they reach, for people."""
    first, last = heights(ordered)[[0, -1]]
    name = PLANES[int(np.abs(ordered[0].normal).argmax())]
    return f"{name} at {first:.1f} mm" if len(ordered) == 1 else f"{name} from {first:.1f} to {last:.1f} mm"
