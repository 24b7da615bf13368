"""data: check, index, split and fetch data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.options import Model, Output, Seed, UsageError
from medrecon.cli.progress import progress
from medrecon.cli.show import check_folder, check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from medrecon.data.manifest import Manifest

app = App(name="data", help="Data sets: check them, split them by subject, index them for training, fetch them.")
OutputPath = Annotated[Path, Parameter(name=["--output", "-o"])]


def _manifest(path: Path, modality: Literal["CT", "MR"] | None = None) -> Manifest:
    from medrecon.data.describe import describe
    from medrecon.data.manifest import load_manifest

    if not path.is_dir():
        return load_manifest(path)
    return load_manifest(path / "manifest.toml") if (path / "index.json").exists() else describe(path, modality)


class Reading(Model):
    """Where the files are, and what they hold."""

    root: Path | None = None
    """folder the manifest's paths start from"""
    modality: Literal["CT", "MR"] | None = None
    """of a folder of NIfTI files or sheets, which do not tell it"""
    near: float = Field(0.9, ge=0, le=1)
    """likeness from which two slices are near-duplicates, see docs/guide/data.md"""


@app.command
def check(data: Path, /, *, how: Reading = Reading(), out: Output = Output()) -> int:
    """Verify files, read every slice, list subjects, find slices and subjects in two splits; exit code 1 if any.

    Parameters
    ----------
    data
        manifest (.toml), training store, or folder of DICOM, NIfTI, fastMRI or sheets
    """
    from medrecon.data.check import check_data

    with progress("check", out.quiet) as bar:
        report = check_data(_manifest(data, how.modality), how.root, how.near, bar)
    if out.json:
        show_json(report)
    else:
        show_tree({k: v for k, v in report.items() if k not in ("problems", "duplicates")})
        for name, group in report.get("duplicates", {}).items():
            show_tree({name: group if isinstance(group, int) else f"{group['exact']} exact, {group['near']} near"})
            for pair in group["pairs"][:10] if isinstance(group, dict) else ():
                show_tree({"  " + str(pair["likeness"]): f"{pair['a']} | {pair['b']}"})
    for problem in report["problems"]:
        note(f"problem: {problem}")
    return 1 if report["problems"] else 0


class Slices(Model):
    """What to put into a store."""

    root: Path | None = None
    """folder the manifest's paths start from"""
    size: int | None = Field(None, ge=8, le=4096)
    """side of the slices in pixels; as they are unless given"""


@app.command
def index(manifest: Path, /, *, output: OutputPath, what: Slices = Slices(), out: Output = Output()) -> int:
    """Build, or go on building, a training store: 16-bit slices in memory-mapped files, by subject and split.

    Parameters
    ----------
    manifest
        manifest (.toml), or folder with train and val in it
    output
        folder of the store; its manifest.toml is what a training configuration names
    """
    from medrecon.data.build import build_store

    if manifest.is_dir():
        raise UsageError(f"{manifest}: is a folder; make its manifest with `medrecon data split`")
    check_folder(output)
    with progress("index", out.quiet) as bar:
        result = build_store(_manifest(manifest), output, what.root, what.size, on_progress=bar)
    (show_json if out.json else show_tree)(result)
    for name, why in result["skipped"].items():
        note(f"left out {name}: {why}")
    note(f"train with `manifest: {output / 'manifest.toml'}`")
    return 0


class Choices(Model):
    """How to split."""

    val: float = Field(0.1, ge=0, lt=1)
    """fraction of the subjects for validation; at least one unless 0"""
    test: float = Field(0.1, ge=0, lt=1)
    """fraction of the subjects for testing; at least one unless 0"""
    seed: Seed = 0
    """seed of the draw"""
    modality: Literal["CT", "MR"] | None = None
    """of NIfTI files, which do not tell it"""
    subject: str | None = None
    """PatientID (DICOM's default; kept as a hash), folder, file, or a regular expression for the path"""
    name: str | None = None
    """name of the data set"""
    licence: str | None = None
    """licence of the data"""


@app.command
def split(
    folder: Path,
    /,
    *,
    output: OutputPath,
    how: Choices = Choices(),
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    out: Output = Output(),
) -> int:
    """Write a manifest for a folder of yours, split by subject, never by slice.

    Parameters
    ----------
    folder
        DICOM, NIfTI or fastMRI files at any depth
    output
        manifest (.toml) to write
    overwrite
        replace an existing manifest
    """
    from medrecon.core import atomic
    from medrecon.data.describe import split_folder
    from medrecon.data.toml import manifest_text

    if output.suffix != ".toml":
        raise UsageError(f"-o {output}: a manifest ends in .toml")
    if how.val + how.test >= 1:
        raise UsageError(f"--val {how.val:g}, --test {how.test:g}: fractions of the subjects, together below 1")
    check_free(output, overwrite, inputs=(folder,))
    manifest, whose, warnings = split_folder(
        folder, output, how.val, how.test, how.seed, how.modality, how.subject, how.name, how.licence
    )
    with atomic.file(output, overwrite=overwrite) as path:
        path.write_text(manifest_text(manifest, "Written by `medrecon data split`."), encoding="utf-8")
    counts = {s: sum(at == s for at in whose.values()) for s in ("train", "val", "test")}
    (show_json if out.json else show_tree)({"manifest": str(output), "subjects": counts, "warnings": warnings})
    for warning in warnings:
        note(f"warning: {warning}")
    return 0


@app.command
def fetch(manifest: Path, /, *, output: OutputPath, out: Output = Output()) -> int:
    """Download the files a manifest names, over HTTPS, and verify them; go on where an earlier run stopped.

    Parameters
    ----------
    manifest
        manifest (.toml)
    output
        folder to put them in
    """
    from medrecon.data.fetch import fetch_data, how_to_get

    described = _manifest(manifest)
    check_folder(output)
    with progress("fetch", out.quiet) as bar:
        result: dict[str, Any] = fetch_data(described, output, bar)
    (show_json if out.json else show_tree)(result)
    for name, entry in result.items():
        if not entry["verified"]:
            note(f"{name}: the manifest has no sha256 to verify it by; it is {entry['sha256']}")
    note(f"licence: {described.licence} ({described.licence_checked}); cite: {described.citation or described.url}")
    if any(not file.url for file in described.files):
        note(f"other files: {how_to_get(described)}")
    return 0
