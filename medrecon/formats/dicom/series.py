"""Which frames of DICOM files form one regular stack of slices, and which stack is meant."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from medrecon.formats.dicom import files, geometry, kinds
from medrecon.formats.dicom import frames as dicom_frames
from medrecon.formats.dicom.frames import Frame

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

# What tells apart several volumes of one kind that share one place: time points, acquisitions, small differences.
REPEATS = (
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "InversionTime",
    "FlipAngle",
    "ASLContext",
    "VelocityEncodingDirection",
    "NominalPercentageOfCardiacPhase",
    "KVP",
    "ConvolutionKernel",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "SliceThickness",
    "DimensionIndexValues",
)
# What slices of one volume have in common; it may be missing.
WHOSE = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
MADE_UP = 3  # images, from which it is no chance that no two share a frame of reference; LIDC-IDRI is so
CLOCKS = ("TriggerTime", "AcquisitionTime")  # may change from slice to slice, too
AT_MOST = 3  # of them are needed at once


@dataclass(frozen=True)
class Stack:
    """Slices of one geometry, in order along their normal.

    Attributes:
        label: a short name made from a hash of the series UID; what `series=` takes.
        frames: its slices.
        told: what tells it from the others of its series.
        problem: why the stack is not, or not the whole, volume; empty when it is.
        part: a regular run of slices that may be read although the stack it is from has a problem.
    """

    label: str
    frames: list[Frame]
    told: str = ""
    problem: str = ""
    part: bool = False

    def __str__(self) -> str:
        first, header = self.frames[0], self.frames[0].header
        number = f" (series {first.get('SeriesNumber')})" if first.get("SeriesNumber") is not None else ""
        thickness = f" of {first.get('SliceThickness')} mm" if first.get("SliceThickness") else ""
        size = f"{header.Columns}x{header.Rows}, {len(self.frames)} slice(s){thickness}"
        text = f"{first.get('SeriesDescription') or 'no description'!r}{number}, {first.get('Modality')} {size}"
        return ", ".join(filter(None, (f"{self.label}: {text}", geometry.plane(self.frames), self.told)))


def choose(stacks: list[Stack], series: str | None, where: Path) -> Stack:
    """Return the only stack, or the one that `series` names by label, by series UID or its beginning.

    Raises:
        ValueError: none or several fit; the message lists them. Or the chosen one is not a volume.
    """
    found = stacks
    if series is not None:
        found = [s for s in stacks if s.label == series] or [
            s for s in stacks if s.label.startswith(series) or s.frames[0].get("SeriesInstanceUID") == series
        ]
    problem = found[0].problem if len({s.problem for s in found}) == 1 else ""
    if len(found) == 1 and (not problem or (found[0].part and series is not None)):
        return found[0]
    if problem and not found[0].part:
        raise ValueError(f"{where}: {problem}")
    reason = problem or (f"{len(found)} image stacks" if found else f"no image stack is called {series!r}")
    listing = "\n".join(f"  {stack}" for stack in found or stacks)
    raise ValueError(f"{where}: {reason}; choose one with series=LABEL (--series LABEL):\n{listing}")


def stacks(headers: list[Dataset]) -> list[Stack]:
    """Group the frames of files by series, then by geometry, then by what tells repeats at one place apart.

    A file without a place is the problem of its series, and of no other.

    Raises:
        ValueError: no file has a usable geometry.
    """
    found: list[Stack] = []
    frames, nowhere = _placed(headers)
    for uid, members in _split(frames, lambda f: str(f.get("SeriesInstanceUID") or "")).items():
        label = hashlib.sha256(uid.encode()).hexdigest()[:8]
        groups = [stack for same in _grids(members) for stack in _volumes(geometry.in_order(same))]
        lost = nowhere.pop(uid, "")
        for index, (group, told, problem, part) in enumerate(groups, start=1):
            name = label if len(groups) == 1 else f"{label}.{index}"
            strange = mixed(group)
            rest = part if problem else bool(lost)  # what is whole may be read, asked for by its label
            found.append(Stack(name, group, told, strange or lost or problem, rest and not strange))
    for left_out in nowhere.values():
        log.warning("%s; left out", left_out)
    return found


def mixed(frames: Sequence[Frame]) -> str:
    """Return why frames of one series do not belong together; empty where they may."""
    for name in WHOSE:
        first: dict[str, Frame] = {}
        for frame in frames:
            first.setdefault(str(frame.get(name) or ""), frame)
        told = [frame for value, frame in first.items() if value]
        if name == "FrameOfReferenceUID" and len(told) == len(frames) >= MADE_UP:
            log.warning(
                "%s: every image of this series has a FrameOfReferenceUID of its own, made up where patient data were "
                "taken out; positions are taken as of one frame",
                told[0],
            )
        elif len(told) > 1:
            return f"{told[0]} and {told[1]} are of one series, and differ in {name}: they do not belong together"
    return ""


def _placed(headers: list[Dataset]) -> tuple[list[Frame], dict[str, str]]:
    """Frames, and by series UID why a file has none."""
    from pydicom.uid import UID

    frames: list[Frame] = []
    nowhere: dict[str, str] = {}
    for header in headers:
        uid = str(header.get("SeriesInstanceUID") or "")
        try:
            found, lost = dicom_frames.of(header)
            frames += found
            if lost:
                nowhere.setdefault(uid, lost)
        except ValueError as error:
            page = "Rows" in header and not header.get("ImagePositionPatient") and not files.is_multiframe(header)
            if not page or not UID(uid).is_valid:  # damaged: any series may lack it
                raise
            nowhere.setdefault(uid, str(error))
    if not frames and nowhere:
        raise ValueError(next(iter(nowhere.values())))
    return frames, nowhere


def _split(frames: Iterable[Frame], key: Callable[[Frame], str]) -> dict[str, list[Frame]]:
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return dict(groups)


def _grids(frames: list[Frame]) -> list[list[Frame]]:
    """Frames that can share a grid. Each stack of an enhanced file is one of its own."""
    found: list[list[Frame]] = []
    for same in _split(frames, _origin).values():
        groups: list[list[Frame]] = []
        for frame in same:
            group = next((g for g in groups if geometry.same_grid(g[0], frame)), None)
            if group is None:
                groups.append([frame])
            else:
                group.append(frame)
        found += groups
    return found


def _origin(frame: Frame) -> str:
    own = f" {frame.get('StackID')} {frame.header.filename}" if frame.is_multiframe else ""
    return f"{frame.header.SOPClassUID}{own}"


def _volumes(ordered: list[Frame]) -> Iterator[tuple[list[Frame], str, str, bool]]:
    """(slices in order, what tells them apart, problem, part) of each volume among frames that share a grid."""
    groups: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame, kind in zip(ordered, kinds.of(ordered), strict=True):
        groups[kind].append(frame)
    found = []
    for same in groups.values():
        problem, _ = geometry.irregularity(same)
        for volume in _repeats(same) if problem else [same]:
            problem, breaks = geometry.irregularity(volume)
            found += [(volume[i:j], problem, bool(breaks)) for i, j in pairwise([0, *breaks, len(volume)])]
    told = _texts(ordered, (*REPEATS, *kinds.NAMES, *CLOCKS)) if len(found) > 1 else {}
    place = {frame: i for i, frame in enumerate(ordered)}
    for volume, problem, part in found:
        yield volume, _said(told, [place[frame] for frame in volume]), problem, part


def _texts(frames: Sequence[Frame], names: Iterable[str]) -> dict[str, list[str]]:
    """The attributes in which frames differ, as texts."""
    told = {name: [kinds.written(kinds.value(frame, name)) for frame in frames] for name in dict.fromkeys(names)}
    return {name: texts for name, texts in told.items() if len(set(texts)) > 1}


def _repeats(ordered: list[Frame]) -> list[list[Frame]]:
    """The volumes among repeated frames by the fewest attributes that leave one at a place."""
    places = len(ordered) - len(geometry.doubled(ordered))
    told = _texts(ordered, (*REPEATS, *CLOCKS))
    for names in (names for n in range(1, AT_MOST + 1) for names in combinations(told, n)):
        groups: dict[Hashable, list[Frame]] = defaultdict(list)
        for frame, key in zip(ordered, zip(*(told[name] for name in names), strict=True), strict=True):
            groups[key].append(frame)
        if _separate(list(groups.values()), places, len(ordered), names):
            return list(groups.values())
    return [ordered]


def _separate(parts: list[list[Frame]], places: int, count: int, names: tuple[str, ...]) -> bool:
    """Tell whether every part is a volume: no place twice, and no slices torn out of one another's gaps."""
    if len(parts) < 2 or any(len(geometry.doubled(part)) for part in parts):
        return False
    if all(len(part) == places for part in parts):
        return True
    if min(map(len, parts)) < 2 or set(names) & set(CLOCKS):
        return False
    if count > places:
        return True
    return names == ("SliceThickness",) and not any(geometry.irregularity(part)[0] for part in parts)


def _said(told: dict[str, list[str]], indices: list[int]) -> str:
    """What is the same in a part, of what is not in all."""
    same = {name: {texts[i] for i in indices} for name, texts in told.items()}
    return ", ".join(f"{name} {texts.pop() or 'none'}" for name, texts in same.items() if len(texts) == 1)
