"""The slices a prior is judged on: a manifest's, or a folder of held-out scans."""

from __future__ import annotations

from pathlib import Path

import torch

from medrecon.data.cases import inventory
from medrecon.data.manifest import Manifest, load_manifest
from medrecon.data.read import read_case, slope
from medrecon.data.values import resized
from medrecon.diagnose.base import Case, Settings
from medrecon.models.prior import Prior
from medrecon.training.images.slices import Slices
from medrecon.training.images.sources import load_slices


def load_case(prior: Prior, data: Path, size: int, settings: Settings, device: str) -> Case:
    """`data`: a manifest (.toml), whose `train` and `val` are both used; or a folder of held-out DICOM or NIfTI.

    Raises:
        FileNotFoundError: no such data.
        ValueError: another modality or other units than the prior's, a size its latents cannot have, or a subject
            that is in both train and val.
    """
    factor = prior.autoencoder.factor
    if size % factor:
        raise ValueError(f"size {size}: the prior {prior.name!r} needs a multiple of {factor}")
    if not data.exists():
        raise FileNotFoundError(f"{data}: no such manifest or folder")
    manifest = folder_manifest(prior, data) if data.is_dir() else load_manifest(data)
    if (manifest.modality, manifest.units) != (prior.modality, prior.units):
        raise ValueError(
            f"{data}: {manifest.modality} in {manifest.units}, but the prior {prior.name!r} is for "
            f"{prior.modality} in {prior.units}"
        )
    held_out = folder_slices(manifest, size) if data.is_dir() else load_slices(manifest, "val", size)
    training = load_slices(manifest, "train", size) if manifest.train is not None else None
    shared = set(held_out.subjects) & set(training.subjects if training is not None else ())
    if shared:
        raise ValueError(f"{data}: subjects in both train and val: {sorted(shared)[:5]}; split by subject")
    return Case(prior, held_out, training, settings, device)


def folder_slices(manifest: Manifest, size: int) -> Slices:
    """All slices below the folder, of every series of a subject, in order along the normal of each series.

    Raises:
        ValueError: damaged files, or DICOM that lies in no subject's sub-folder.
    """
    folder = manifest.folder("val")
    found = inventory(manifest)
    if found.unreadable:
        path, reason = next(iter(found.unreadable.items()))
        raise ValueError(f"{path}: {reason}; {len(found.unreadable)} such file(s): take them out of the folder")
    loose = [c.files[0] for c in found.cases if manifest.kind == "dicom" and c.files[0].parent == folder]
    if loose:
        raise ValueError(f"{loose[0]}: lies in no sub-folder; give each subject one, so that slices have an owner")
    data = [resized(read_case(case, manifest).data, size) for case in found.cases]
    subjects = tuple(case.subject for case, part in zip(found.cases, data, strict=True) for _ in part)
    return Slices(torch.cat(data), subjects, slope(manifest))


def folder_manifest(prior: Prior, folder: Path) -> Manifest:
    """A manifest of one folder with a sub-folder (or NIfTI file) a subject, all of them held out.

    Raises:
        ValueError: PNG sheets, which do not say what their values mean.
    """
    if (folder / "index.tsv").exists():
        raise ValueError(f"{folder}: PNG sheets do not say their units; give the manifest (.toml) that names them")
    nifti = any(p.name.endswith((".nii", ".nii.gz")) for p in folder.rglob("*"))
    return Manifest.model_validate(
        {
            "name": folder.name,
            "modality": prior.modality,
            "units": prior.units,
            "content": "held-out scans",
            "licence": "not stated",
            "licence_checked": "no",
            "kind": "nifti" if nifti else "dicom",
            "root": folder.absolute(),
            "val": Path(),
        }
    )
