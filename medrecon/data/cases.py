"""What a data set consists of: volumes, each with its files, its subject and its split. Pixels are not read here."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medrecon.data import sheets
from medrecon.data.expressions import check_ends
from medrecon.data.manifest import SPLITS, Manifest, Rule, Split
from medrecon.formats.dicom.files import found

NIFTI = (".nii", ".nii.gz")
NAMED = ("folder", "file", "PatientID", "index.tsv")
"""The ways to tell subjects apart that are no expression."""
TAGS = [
    "PatientID",
    "SeriesInstanceUID",
    "SOPClassUID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InstanceNumber",
    "Rows",
    "Columns",
]


@dataclass(frozen=True)
class Case:
    """One volume: slices that are read, scaled and numbered together.

    Attributes:
        name: path below the data set's folder, and for DICOM a hash of the series.
        subject: whose it is, as the manifest tells subjects apart.
        split: None: in none.
        files: what to read, in order; one slice each for DICOM.
        patient: a hash of the header's PatientID, where there is one, whatever `subject` is.
        frames: of sheets, the frames that belong to the subject.
    """

    name: str
    subject: str
    split: Split | None
    files: tuple[Path, ...]
    patient: str = ""
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """The cases of a data set; the files that could not even be looked into, with the reason; what else was there."""

    cases: tuple[Case, ...]
    unreadable: dict[str, str]
    passed_over: dict[str, int]
    """how many files of a DICOM folder are no images to train on, by what they are"""


def pseudonym(identifier: str) -> str:
    """A hash in place of an identifier. No anonymisation: who knows the identifiers can hash them too."""
    return hashlib.sha256(b"medrecon:" + identifier.strip().encode()).hexdigest()[:12]


def inventory(manifest: Manifest, root: Path | None = None) -> Inventory:
    """Every volume below the split folders, or below the root when [split] says who is where.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: the manifest is not for reading, no file of its kind, or a file without the subject key.
    """
    if manifest.kind is None or manifest.kind == "store":
        raise ValueError(f"{manifest.path}: kind is {manifest.kind}; set kind to what its files are, and their folders")
    base = manifest.base(root)
    unreadable: dict[str, str] = {}
    passed: Counter[str] = Counter()
    if manifest.split is None:
        named = [split for split in SPLITS if getattr(manifest, split) is not None]
        parts: list[tuple[Split | None, Path]] = [(split, manifest.folder(split, root)) for split in named]
    else:
        parts = [(None, base)]
    if not parts:
        manifest.folder("train", root)  # says what to do
    if not base.is_dir():
        raise FileNotFoundError(f"{base} not found: the data of {manifest.path}; set root or give --root")
    found: list[Case] = []
    for split, folder in parts:
        if manifest.subject not in NAMED:
            check_ends(manifest.subject, [path.relative_to(folder).as_posix() for path in _files(folder)])
        cases = list(_LISTED[manifest.kind](folder, manifest, unreadable, passed))
        if not cases and not unreadable:
            raise ValueError(
                f"{folder}: no {manifest.kind} files of {manifest.modality}; "
                f"are kind and modality right in {manifest.path}?"
            )
        found += [
            replace(c, split=split, name=f"{folder.relative_to(base).as_posix()}/{c.name}".removeprefix("./"))
            for c in cases
        ]
    if manifest.split is not None:
        whose = assign(manifest.split, {case.subject for case in found})
        found = [replace(case, split=whose.get(case.subject)) for case in found]
    return Inventory(tuple(sorted(found, key=lambda c: c.name)), unreadable, dict(passed))


def assign(rule: Rule, subjects: set[str]) -> dict[str, Split]:
    """Split of every subject. Fractions take subjects in the order of a hash with the seed, at least one each.

    Raises:
        ValueError: too few subjects for the fractions.
    """
    order = sorted(subjects, key=lambda s: hashlib.sha256(f"{rule.seed}:{s}".encode()).digest())
    whose: dict[str, Split] = {}
    parts: tuple[tuple[Split, tuple[str, ...] | float], ...] = (("test", rule.test), ("val", rule.val))
    for split, part in parts:
        chosen = part if not isinstance(part, float) else ()
        if isinstance(part, float) and part > 0:
            count = max(1, round(part * len(subjects)))
            chosen, order = tuple(order[:count]), order[count:]
        whose |= {name: split for name in chosen if name in subjects}
    rest = rule.train or [name for name in subjects if name not in whose]
    whose |= {name: "train" for name in rest if name in subjects}
    if subjects and not rule.train and "train" not in whose.values():
        raise ValueError(f"{len(subjects)} subject(s) are too few for val = {rule.val} and test = {rule.test}")
    return whose


def subject_of(path: Path, folder: Path, key: str) -> str:
    """Subject of a file below the split's folder, by the rule of the manifest (all but PatientID and index.tsv).

    Raises:
        ValueError: the regular expression is not found in the path.
    """
    inside = path.relative_to(folder)
    if key == "folder":
        return inside.parts[0]
    if key == "file":
        return inside.as_posix()
    match = re.search(key, inside.as_posix())
    if match is None:
        raise ValueError(f"{path}: subject = {key!r} does not match {inside.as_posix()!r}")
    return str(match[1] if match.re.groups else match[0])


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that are not hidden, through links too.

    Raises:
        ValueError: a link to nothing.
    """
    for path in found(folder):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if not path.is_file():
            raise ValueError(f"{path}: a link to nothing; restore what it points to or remove it")
        yield path


def _nifti(folder: Path, manifest: Manifest, unreadable: dict[str, str], passed: Counter[str]) -> Iterator[Case]:
    if manifest.subject == "PatientID":
        raise ValueError(f"{manifest.path}: NIfTI has no PatientID; set subject to folder, file or an expression")
    for path in _files(folder):
        if path.name.lower().endswith(NIFTI):
            subject = subject_of(path, folder, manifest.subject)
            yield Case(path.relative_to(folder).as_posix(), subject, None, (path,))


def _fastmri(folder: Path, manifest: Manifest, unreadable: dict[str, str], passed: Counter[str]) -> Iterator[Case]:
    """One .h5 file a volume; its attribute patient_id is the subject, where asked for."""
    from medrecon.formats.common import hdf5

    for path in _files(folder):
        if path.suffix != ".h5":
            continue
        try:
            with hdf5.opened(path) as h5:
                identifier = str(h5.attrs.get("patient_id", ""))
        except ValueError as error:
            unreadable[str(path)] = str(error)
            continue
        name, patient = path.relative_to(folder).as_posix(), pseudonym(identifier) if identifier else ""
        yield Case(name, _owner(path, folder, manifest, patient), None, (path,), patient)


def _owner(path: Path, folder: Path, manifest: Manifest, patient: str) -> str:
    if manifest.subject != "PatientID":
        return subject_of(path, folder, manifest.subject)
    if not patient:
        raise ValueError(
            f"{path}: no PatientID; tell subjects apart by folder, file or an expression: --subject of "
            f"`medrecon data split`, subject in {manifest.path}"
        )
    return patient


def _sheets(folder: Path, manifest: Manifest, unreadable: dict[str, str], passed: Counter[str]) -> Iterator[Case]:
    frames: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in sheets.index(folder):
        frames[row["sheet"], f"{row['source']}/{row['subject']}"].append(int(row["frame"]))
    for (sheet, subject), numbers in frames.items():
        yield Case(sheet, subject, None, (folder / sheet,), frames=tuple(sorted(numbers)))


def _dicom(folder: Path, manifest: Manifest, unreadable: dict[str, str], passed: Counter[str]) -> Iterator[Case]:
    """Images of the manifest's modality by subject, series, orientation and size, in order along their normal."""
    from pydicom import dcmread

    from medrecon.formats.dicom.files import MULTIFRAME, SLICES, is_dicom

    groups: dict[tuple[str, ...], list[tuple[float, str, Path]]] = defaultdict(list)
    for path in _files(folder):
        try:
            if not is_dicom(path):
                passed["not DICOM"] += 1
                continue
            header = dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
            kind = SLICES.get(header.SOPClassUID) or MULTIFRAME.get(header.SOPClassUID)
            localizer = "LOCALIZER" in (header.get("ImageType") or [])
            if kind != manifest.modality or localizer:
                passed["localizers" if localizer else f"{kind} images" if kind else "neither CT nor MR images"] += 1
                continue
            axes = tuple(round(float(v), 2) + 0.0 for v in header.get("ImageOrientationPatient") or ())
            place = _place(header, axes)
            size = (header.get("Rows"), header.get("Columns"))
        except Exception as error:
            unreadable[str(path)] = f"damaged DICOM file ({error})"
            continue
        patient = pseudonym(str(header.PatientID)) if str(header.get("PatientID") or "").strip() else ""
        series = pseudonym(str(header.get("SeriesInstanceUID", "")))[:8]
        alone = str(path) if header.SOPClassUID in MULTIFRAME else ""
        key = (_owner(path, folder, manifest, patient), patient, series, str(size), str(axes), alone)
        groups[key].append((place, path.name, path))
    for (subject, patient, series, *rest), members in groups.items():
        paths = tuple(path for *_, path in sorted(members))
        where = paths[0].parent.relative_to(folder).as_posix()
        detail = pseudonym("/".join(rest))[:4]  # several orientations, sizes or multi-frame files in one series
        yield Case(f"{where}/{series}-{detail}".removeprefix("./"), subject, None, paths, patient)


def _place(header: Any, axes: tuple[float, ...]) -> float:
    """Height along the normal, or the instance number where the header tells no place."""
    position = header.get("ImagePositionPatient")
    if len(axes) == 6 and position is not None:
        return float(np.dot(np.cross(axes[:3], axes[3:]), [float(v) for v in position]))
    return float(header.get("InstanceNumber") or 0)


_LISTED: dict[str, Callable[[Path, Manifest, dict[str, str], Counter[str]], Iterator[Case]]] = {
    "sheets": _sheets,
    "dicom": _dicom,
    "nifti": _nifti,
    "fastmri": _fastmri,
}
