"""Training slices from a data manifest: PNG sheets, or a user's own DICOM or NIfTI folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from medrecon.manifest import Manifest, Split
from medrecon.training.slices import Slices, read_sheets
from medrecon.volume import Volume

COUNTS = 8191.0
"""stored counts per unit of an MR magnitude scaled to about 1; int16 then holds up to 4 times that"""


def load_slices(manifest: Manifest, split: Split, size: int, root: Path | None = None) -> Slices:
    """Slices (N, size, size) of a split, in the units of the manifest.

    CT is stored in whole HU. MR magnitudes have arbitrary units: each DICOM or NIfTI subject is divided by the
    99.9th percentile of its volume. Other sizes are resampled with antialiasing.

    Raises:
        FileNotFoundError: the folder is not there, or empty.
        ValueError: no folder named, or a subject of another modality, or an empty volume.
    """
    folder = manifest.folder(split, root)
    if manifest.kind == "sheets":
        sheets = read_sheets(folder, manifest.slope, manifest.intercept)
        return Slices(_resized(sheets.data, size), sheets.subjects, sheets.slope, sheets.intercept)
    stacks: list[Tensor] = []
    subjects: list[str] = []
    for path in _cases(folder, manifest):
        stacks.append(_stored(path, manifest, size))
        subjects += [path.name] * len(stacks[-1])
    return Slices(torch.cat(stacks), tuple(subjects), 1.0 if manifest.units == "HU" else 1 / COUNTS)


def _cases(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """One path a subject: every sub-folder, and for NIfTI every file."""
    found = [
        path for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (path.is_dir() or (manifest.kind == "nifti" and path.name.endswith((".nii", ".nii.gz"))))
    ]  # fmt: skip
    if not found:
        what = "sub-folders" if manifest.kind == "dicom" else "sub-folders or .nii.gz files"
        raise FileNotFoundError(f"{folder}: no {what}; {manifest.path} expects one {manifest.kind} subject each")
    yield from found


def _volumes(path: Path, manifest: Manifest) -> Iterator[Volume]:
    """The volumes of a subject: the DICOM series of its folder, or its NIfTI files."""
    from medrecon import io

    files = [path]
    if manifest.kind == "nifti" and path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.name.endswith((".nii", ".nii.gz")))
        if not files:
            raise FileNotFoundError(f"{path}: no .nii or .nii.gz file")
    for file in files:
        yield io.read(file, modality=manifest.modality)


def _stored(path: Path, manifest: Manifest, size: int) -> Tensor:
    """Slices (N, size, size) int16 of one subject."""
    parts = []
    for volume in _volumes(path, manifest):
        if (volume.modality, volume.units) != (manifest.modality, manifest.units):
            raise ValueError(
                f"{path}: {volume.modality} in {volume.units}, but {manifest.path} says "
                f"{manifest.modality} in {manifest.units}"
            )
        data = (volume.data.abs() if volume.data.is_complex() else volume.data).float()
        if manifest.units != "HU":
            scale = float(torch.quantile(data.flatten()[:: max(1, data.numel() // 1_000_000)], 0.999))
            if scale <= 0:
                raise ValueError(f"{path}: the 99.9th percentile of the magnitudes is {scale:g}; is the volume empty?")
            data = data * (COUNTS / scale)
        parts.append(_resized(data.round().clamp(-32768, 32767).to(torch.int16), size))
    return torch.cat(parts)


def _resized(data: Tensor, size: int) -> Tensor:
    """int16 slices (N, H, W) -> (N, size, size), antialiased; a rectangle is padded to a square first."""
    height, width = data.shape[-2:]
    if height != width:
        side = max(height, width)
        low = int(data.min())
        square = torch.full((len(data), side, side), low, dtype=data.dtype)
        top, left = (side - height) // 2, (side - width) // 2
        square[:, top : top + height, left : left + width] = data
        data = square
    if data.shape[-1] == size:
        return data
    resized = torch.nn.functional.interpolate(data[:, None].float(), (size, size), mode="bilinear", antialias=True)
    return resized[:, 0].round().to(torch.int16)
