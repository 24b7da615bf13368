"""Writes small data folders and their manifests."""

from pathlib import Path

import torch

from medrecon import formats
from medrecon.core.volume import Volume
from medrecon.data.manifest import Manifest, load_manifest

HEAD = 'name = "mine"\nmodality = "CT"\nunits = "HU"\ncontent = "x"\nlicence = "own"\nlicence_checked = "vote"\n'


def manifest(folder: Path, text: str) -> Manifest:
    (folder / "m.toml").write_text(HEAD + text)
    return load_manifest(folder / "m.toml")


def nifti(path: Path, seed: int = 0, slices: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = torch.rand(slices, 12, 16, generator=torch.Generator().manual_seed(seed)).mul(1000).round()
    formats.write(Volume(data, torch.eye(4, dtype=torch.float64), "a.u.", "MR"), path)
