"""Which DICOM files form one regular stack of slices, and where its voxels are."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

log = logging.getLogger(__name__)

SLICES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
MULTIFRAME = {
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
# What tells apart several volumes that share one series and one place: echoes, magnitude and phase, time points.
REPEATS = (
    "EchoNumbers",
    "EchoTime",
    "ImageType",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
)
TOLERANCE = 0.02  # of the slice step: how far a slice may stand from its regular place
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """Slices of one geometry, in order along their normal.

    Attributes:
        label: a short name made from a hash of the series UID; what `series=` takes.
        headers: datasets without pixels, with `filename`.
        problem: why the stack is not, or not the whole, volume; empty when it is.
        part: a regular run of slices that may be read although the stack it is from has a problem.
    """

    label: str
    headers: list[Dataset]
    problem: str = ""
    part: bool = False

    def __str__(self) -> str:
        first = self.headers[0]
        thickness = f" of {first.SliceThickness} mm" if first.get("SliceThickness") else ""
        size = f"{first.Columns}x{first.Rows}, {len(self.headers)} slice(s){thickness}"
        return f"{self.label}: {first.get('SeriesDescription') or 'no description'!r}, {first.Modality} {size}"


def headers(path: Path) -> list[Dataset]:
    """Headers of the CT and MR images in a file or, at any depth, in a folder; localizers are left out.

    Raises:
        ValueError: a file that cannot be parsed, or no CT or MR image.
    """
    from pydicom import dcmread

    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    kept: list[Dataset] = []
    others: Counter[str] = Counter()
    for name in files:
        if not is_dicom(name):
            if name.suffix.lower() == ".dcm":
                log.warning("%s: is no DICOM file, in spite of its name; left out", name)
            continue
        try:
            dataset = dcmread(name, stop_before_pixels=True)
            sop_class = dataset.get("SOPClassUID", "")
            localizer = "LOCALIZER" in (dataset.get("ImageType") or [])
        except Exception as error:
            raise ValueError(f"{name}: damaged DICOM file ({error}); restore or remove it") from error
        if (sop_class in SLICES or sop_class in MULTIFRAME) and not localizer:
            kept.append(dataset)
        else:
            others["localizer" if localizer else str(getattr(sop_class, "name", sop_class) or "no SOP class")] += 1
    if others:
        log.info("%s: left out %s", path, ", ".join(f"{n} x {what}" for what, n in others.items()))
    if not kept:
        found = ", ".join(f"{n} x {what}" for what, n in others.items()) or "no DICOM file"
        raise ValueError(f"{path}: no CT or MR image here (found: {found})")
    return kept


def kind(header: Dataset) -> str:
    """Return "CT" or "MR", by SOP class."""
    return SLICES.get(header.SOPClassUID) or MULTIFRAME[header.SOPClassUID]


def is_dicom(path: Path) -> bool:
    """Tell whether a file has the DICOM preamble; the name does not matter."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def first_file(path: Path) -> Path | None:
    """Return the first DICOM file, at any depth in a folder."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return next(filter(is_dicom, files), None)


def choose(stacks: list[Stack], series: str | None, where: Path) -> Stack:
    """The only stack, or the one that `series` names by label, by series UID or its beginning.

    Raises:
        ValueError: none or several fit; the message lists them. Or the chosen one is not a volume.
    """
    found = stacks
    if series is not None:
        found = [s for s in stacks if s.label == series] or [
            s for s in stacks if s.label.startswith(series) or s.headers[0].SeriesInstanceUID == series
        ]
    problem = found[0].problem if len({s.problem for s in found}) == 1 else ""
    if len(found) == 1 and (not problem or found[0].part):
        return found[0]
    if problem and not found[0].part:
        raise ValueError(f"{where}: {problem}")
    reason = problem or (f"{len(found)} image stacks" if found else f"no image stack is called {series!r}")
    listing = "\n".join(f"  {stack}" for stack in found or stacks)
    raise ValueError(f"{where}: {reason}; choose one with series=LABEL (--series LABEL):\n{listing}")


def stacks(datasets: list[Dataset]) -> list[Stack]:
    """Group headers by series, then by geometry, then by what tells repeats at one place apart."""
    found: list[Stack] = []
    for uid, members in _split(datasets, lambda d: str(d.get("SeriesInstanceUID", ""))).items():
        label = hashlib.sha256(uid.encode()).hexdigest()[:8]
        groups = [runs for same in _split(members, _geometry_key).values() for runs in _regular_groups(same)]
        for index, (group, problem, part) in enumerate(groups, start=1):
            name = label if len(groups) == 1 else f"{label}.{index}"
            found.append(Stack(name, group, problem, part))
    return found


def affine(ordered: list[Dataset]) -> Tensor:
    """Voxel (column, row, slice) to RAS mm, float64 (4, 4), of slices in order along their normal.

    The slice axis is the mean step between image positions, so the shear of a tilted gantry stays in the affine.
    """
    first = ordered[0]
    column_step, row_step, normal = _axes(first)
    positions = _positions(ordered)
    if len(ordered) > 1:
        step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    else:
        step = normal * float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
    matrix = np.eye(4)
    matrix[:3] = np.stack([column_step, row_step, step, positions[0]], axis=1)
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > 0.1:
        log.info("%s: tilted by %.1f degrees; the affine keeps the shear, nothing is resampled", first.filename, tilt)
    return torch.from_numpy(LPS_TO_RAS @ matrix)


def _split(datasets: Iterable[Dataset], key: Any) -> dict[Any, list[Dataset]]:
    groups: dict[Any, list[Dataset]] = defaultdict(list)
    for dataset in datasets:
        groups[key(dataset)].append(dataset)
    return dict(groups)


def _geometry_key(dataset: Dataset) -> tuple[Any, ...]:
    """Equal for slices that can share a grid. Each multi-frame file is a stack of its own."""
    if dataset.SOPClassUID in MULTIFRAME:
        return (str(dataset.filename),)
    try:
        spacing = tuple(round(float(v), 5) for v in dataset.PixelSpacing)
        axes = tuple(round(float(v), 3) + 0.0 for v in dataset.ImageOrientationPatient)
        place = tuple(float(v) for v in dataset.ImagePositionPatient)
        size = (int(dataset.Rows), int(dataset.Columns))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{dataset.filename}: no usable geometry ({error})") from error
    if len(spacing) != 2 or min(spacing) <= 0 or len(axes) != 6 or len(place) != 3 or min(size) < 1:
        raise ValueError(f"{dataset.filename}: no usable geometry (PixelSpacing, orientation, position or size)")
    if abs(np.dot(axes[:3], axes[3:])) > 0.01 or abs(np.linalg.norm(axes[:3]) - 1) > 0.01:
        raise ValueError(f"{dataset.filename}: ImageOrientationPatient {axes} is not a pair of orthogonal unit vectors")
    return str(dataset.SOPClassUID), size, spacing, axes


def _regular_groups(datasets: list[Dataset]) -> list[tuple[list[Dataset], str, bool]]:
    """(slices in order, problem, part) of each volume among slices that share a geometry."""
    if datasets[0].SOPClassUID in MULTIFRAME:
        return [(datasets, "", False)]
    ordered = _in_order(datasets)
    problem, breaks = _irregularity(ordered)
    if not problem:
        return [(ordered, "", False)]
    for key in ("SliceThickness", *REPEATS):
        parts = list(_split(ordered, lambda d: str(d.get(key))).values())  # noqa: B023
        if _separates(key, parts, ordered):
            return [(part, "", False) for part in parts]
    edges = [0, *breaks, len(ordered)]
    return [(ordered[i:j], problem, bool(breaks)) for i, j in pairwise(edges)]


def _separates(key: str, parts: list[list[Dataset]], ordered: list[Dataset]) -> bool:
    """Is each part a regular volume: for repeats one at every place, for thickness any place but more than one?"""
    if len(parts) < 2 or any(_irregularity(part)[0] for part in parts):
        return False
    if key == "SliceThickness":
        return min(map(len, parts)) > 1
    return all(len(part) == _places(ordered) for part in parts)


def _places(ordered: list[Dataset]) -> int:
    heights = _positions(ordered) @ _axes(ordered[0])[2]
    return 1 + int((np.diff(heights) > 0.01).sum())


def _irregularity(ordered: list[Dataset]) -> tuple[str, list[int]]:
    """What is wrong with the slices of a stack, and before which slices it can be cut into regular runs."""
    if len(ordered) == 1:
        return "", []
    positions = _positions(ordered)
    steps = np.diff(positions @ _axes(ordered[0])[2])
    if (same := np.flatnonzero(steps < 0.01)).size:
        a, b = ordered[same[0]].filename, ordered[same[0] + 1].filename
        return f"two slices at one position: {a} and {b} ({same.size} such pair(s)); remove one of each", []
    step = float(np.median(steps))
    slack = TOLERANCE * step + 0.01
    wide = np.flatnonzero(np.abs(steps - step) > slack)
    if wide.size:
        i = int(wide[0])
        a, b = ordered[i], ordered[i + 1]
        between = (
            f"between slice {i} ({a.filename}) and slice {i + 1} ({b.filename}): {steps[i]:.3f} mm, not {step:.3f}"
        )
        missing = round(steps[i] / step) - 1
        if missing > 0 and abs(steps[i] / step - missing - 1) < 0.1:
            heights = [round(float(positions[i] @ _axes(a)[2]) + step * (k + 1), 2) for k in range(missing)]
            return f"{missing} slice(s) missing, index {i + 1}, at {heights} mm along the normal, {between}", [
                int(w) + 1 for w in wide
            ]
        return f"slice spacing is not uniform {between}", _cuts(steps, slack)
    line = positions[0] + np.arange(len(ordered))[:, None] * (positions[-1] - positions[0]) / (len(ordered) - 1)
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() > max(TOLERANCE * step * 5, 0.05):
        return f"slices are not on a line: {ordered[int(off.argmax())].filename} is {off.max():.2f} mm off", []
    return "", []


def _cuts(steps: NDArray[np.float64], slack: float) -> list[int]:
    """Indices where the spacing changes, so that the runs between them are uniform."""
    cuts, start = [], 0
    for i in range(1, len(steps)):
        if i > start and abs(steps[i] - steps[start]) > slack:
            cuts.append(i + 1)
            start = i + 1
    return cuts


def _in_order(datasets: list[Dataset]) -> list[Dataset]:
    normal = _axes(datasets[0])[2]
    heights = _positions(datasets) @ normal
    return [datasets[i] for i in np.argsort(heights, kind="stable")]


def _positions(datasets: list[Dataset]) -> NDArray[np.float64]:
    return np.array([d.ImagePositionPatient for d in datasets], dtype=np.float64)


def _axes(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """LPS steps in mm to the next column and the next row, and the unit normal."""
    axes = np.array(dataset.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)  # headers round the cosines
    normal = np.cross(axes[0], axes[1])
    rows, columns = (float(v) for v in dataset.PixelSpacing)
    return axes[0] * columns, axes[1] * rows, normal / np.linalg.norm(normal)
