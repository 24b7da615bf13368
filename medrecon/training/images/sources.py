"""Training slices from a data manifest: a store, PNG sheets, or a user's own DICOM or NIfTI folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from medrecon.core.volume import Volume
from medrecon.data.manifest import Manifest, Split
from medrecon.data.store import Store
from medrecon.data.values import COUNTS, counts, magnitude_scale, resized
from medrecon.training.images.slices import Slices, read_sheets


def load_slices(manifest: Manifest, split: Split, size: int, root: Path | None = None) -> Slices:
    """Slices (N, size, size) of a split, in the units of the manifest.

    CT is stored in whole HU. MR magnitudes have arbitrary units: each DICOM or NIfTI subject is divided by the
    99.9th percentile of its volume. Other sizes are resampled with antialiasing. A store of one shard of that size
    stays on disk, memory-mapped.

    Raises:
        FileNotFoundError: the folder is not there, or empty.
        ValueError: no folder named, or a subject of another modality, or an empty volume.
    """
    if manifest.kind == "store":
        return _from_store(Store(manifest.base(root)), split, size)
    if manifest.kind == "fastmri":
        raise ValueError(f"{manifest.path}: run `medrecon data index` first and train on its store")
    folder = manifest.folder(split, root)
    if manifest.kind == "sheets":
        sheets = read_sheets(folder, manifest.slope, manifest.intercept)
        return replace(sheets, data=resized(sheets.data, size))
    stacks: list[Tensor] = []
    subjects: list[str] = []
    origins: list[str] = []
    for path in _cases(folder, manifest):
        for file, data in _stored(path, manifest, size):
            stacks.append(data)
            subjects += [path.name] * len(data)
            origins += [file.relative_to(manifest.base(root)).as_posix()] * len(data)
    return Slices(
        torch.cat(stacks), tuple(subjects), 1.0 if manifest.units == "HU" else 1 / COUNTS, origins=tuple(origins)
    )


def _from_store(store: Store, split: Split, size: int) -> Slices:
    shards = store.split(split)
    if not shards:
        raise ValueError(
            f"{store.folder}: no {split!r} slices in the store; give that split subjects in the manifest "
            "it was made from, and index into another folder"
        )
    parts: list[Tensor] = []
    for shard in shards:
        if shard.shape[1:] == (size, size):
            parts.append(shard.data)
        else:  # volume by volume, each padded with its own lowest value
            parts += [resized(shard.data[v["start"] : v["start"] + v["count"]], size) for v in shard.volumes]
    places = [place for shard in shards for place in shard.places()]
    return Slices(
        parts[0] if len(parts) == 1 else torch.cat(parts),
        tuple(p.subject for p in places),
        store.slope,
        origins=tuple(p.file for p in places),
    )


def _cases(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """One path a subject: every sub-folder, and for NIfTI every file."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (path.is_dir() or (manifest.kind == "nifti" and path.name.endswith((".nii", ".nii.gz"))))
    ]
    if not found:
        what = "sub-folders" if manifest.kind == "dicom" else "sub-folders or .nii.gz files"
        raise FileNotFoundError(f"{folder}: no {what}; {manifest.path} expects one {manifest.kind} subject each")
    yield from found


def _volumes(path: Path, manifest: Manifest) -> Iterator[tuple[Path, Volume]]:
    """The volumes of a subject and where they are: the DICOM series of its folder, or its NIfTI files."""
    from medrecon import formats

    files = [path]
    if manifest.kind == "nifti" and path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.name.endswith((".nii", ".nii.gz")))
        if not files:
            raise FileNotFoundError(f"{path}: no .nii or .nii.gz file")
    for file in files:
        yield file, formats.read(file, modality=manifest.modality)


def _stored(path: Path, manifest: Manifest, size: int) -> Iterator[tuple[Path, Tensor]]:
    """Slices (N, size, size) int16 of every volume of one subject."""
    for file, volume in _volumes(path, manifest):
        if (volume.modality, volume.units) != (manifest.modality, manifest.units):
            raise ValueError(
                f"{path}: {volume.modality} in {volume.units}, but {manifest.path} says "
                f"{manifest.modality} in {manifest.units}"
            )
        data = (volume.data.abs() if volume.data.is_complex() else volume.data).float()
        if manifest.units != "HU":
            try:
                data = data * (COUNTS / magnitude_scale(data))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        yield file, resized(counts(data), size)
