"""A manifest for a folder that has none: what is in it, and, for `medrecon data split`, who goes where."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from medrecon.core.volume import Modality, Units
from medrecon.data.cases import NIFTI, assign, inventory
from medrecon.data.manifest import SPLITS, Kind, Manifest, Rule, Split


def describe(
    folder: Path, modality: Modality | None = None, subject: str | None = None, rule: Rule | None = None
) -> Manifest:
    """Kind by content; modality by the DICOM headers; split folders train, val, test where they are there.

    Args:
        modality: needed for NIfTI and sheets, which do not tell it; of DICOM, the images to take where there are both.
        subject: as in the manifest; default: PatientID for DICOM, else the first folder or the file.
        rule: of the split, instead of the folders; without either everything is train.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image in it, or no way to tell the modality.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    kind, told = _kind(folder)
    modality = modality or told
    if modality is None:
        raise ValueError(f"{folder}: {kind} files do not say whether they are CT in HU or MR; give --modality CT or MR")
    parts = {split: Path(split) for split in SPLITS if (folder / split).is_dir()}
    if rule is None and kind == "sheets" and not parts:
        parts = {"train": Path(".")}
    units: Units = "HU" if modality == "CT" else "a.u."
    manifest = Manifest(
        name=folder.resolve().name,
        modality=modality,
        units=units,
        content="not described",
        licence="not stated",
        licence_checked="not checked",
        kind=kind,
        root=folder,
        subject=subject or {"dicom": "PatientID", "sheets": "index.tsv"}.get(kind, "folder"),
        split=rule or (None if parts else Rule()),
        **(parts if rule is None else {}),
    )
    manifest._path = Path("manifest.toml")
    return manifest.model_copy(update={"root": folder.absolute()})


def _kind(folder: Path) -> tuple[Kind, Modality | None]:
    from pydicom import dcmread

    from medrecon.formats.dicom.files import MULTIFRAME, SLICES, is_dicom

    if next(folder.rglob("index.tsv"), None) is not None:
        return "sheets", None
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.name.lower().endswith(NIFTI):
            return "nifti", None
        if path.suffix == ".h5":
            return "fastmri", "MR"
        if is_dicom(path):
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"], force=True)
            sop_class = header.get("SOPClassUID")
            told = SLICES.get(sop_class) or MULTIFRAME.get(sop_class)
            if told is not None:
                return "dicom", "CT" if told == "CT" else "MR"
    raise ValueError(f"{folder}: no DICOM, NIfTI, fastMRI .h5 or sheets (index.tsv) in it")


def split_folder(
    folder: Path,
    output: Path,
    val: float,
    test: float,
    seed: int,
    modality: Modality | None = None,
    subject: str | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> tuple[Manifest, dict[str, Split], list[str]]:
    """A manifest for a user's folder with every subject in one split, listed; the splits, and warnings.

    Raises:
        ValueError: see `describe`, `inventory` and `assign`.
    """
    draft = describe(folder, modality, subject, Rule(val=val, test=test, seed=seed))
    found = inventory(draft)
    whose = assign(Rule(val=val, test=test, seed=seed), {case.subject for case in found.cases})
    lists: dict[Split, tuple[str, ...]] = {s: tuple(sorted(n for n, at in whose.items() if at == s)) for s in SPLITS}
    counts = ", ".join(f"{len(lists[s])} {s}" for s in SPLITS)
    manifest = draft.model_copy(
        update={
            "name": name or draft.name,
            "content": f"{len(found.cases)} volumes of {len(whose)} subjects: {counts}; seed {seed}",
            "licence": licence or draft.licence,
            "root": Path(os.path.relpath(folder.absolute(), output.absolute().parent)),
            "split": Rule(train=lists["train"], val=lists["val"], test=lists["test"], seed=seed),
        }
    )
    warnings = [f"{path}: {why}" for path, why in found.unreadable.items()]
    if found.passed_over:
        warnings.append("passed over: " + ", ".join(f"{n} {what}" for what, n in sorted(found.passed_over.items())))
    if manifest.kind != "dicom":
        warnings += _siblings(whose)
    return manifest, whose, warnings


def _siblings(whose: dict[str, Split]) -> list[str]:
    """A warning where names that begin alike, as T1 and T2 of one person do, count as different subjects."""
    starts = Counter(re.split(r"[-_.\s]", name)[0] for name in whose)
    several = sorted(start for start, n in starts.items() if n > 1)
    if not 1 < len(starts) < len(whose):
        return []
    return [
        f"{several[0]!r} begins {starts[several[0]]} names, which count as different subjects; if they are one "
        f"person, give --subject with an expression such as '^[^-_.]+'"
    ]
