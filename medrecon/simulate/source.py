"""Where a simulated measurement comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medrecon import __version__
from medrecon.core import checksum
from medrecon.core.volume import Volume


def provenance(volume: Volume, generator: torch.Generator, details: dict[str, Any]) -> dict[str, Any]:
    """Software, sha256 of the source's files and of its voxels and affine, seed, and what was simulated.

    No patient data, and no paths: names of folders tell patients.
    """
    return {
        "software": f"medrecon {__version__}",
        "torch": str(torch.__version__),
        "simulated": True,
        "source": _origin(volume.source),
        "source_sha256": checksum.of_content(volume.data, volume.affine),
        "seed": generator.initial_seed(),
        **details,
    }


def _origin(source: Mapping[str, Any]) -> dict[str, Any]:
    """The files by format and digest: {"dicom_sha256": [...]} of DICOM, {"nifti_sha256": [...]} of NIfTI."""
    if "dicom" in source or "dicom_sha256" in source:
        return {"dicom_sha256": list(source.get("dicom_sha256", []))}
    files = {name: Path(str(value)) for name, value in source.items()}
    return {f"{name}_sha256": [checksum.of_file(path)] for name, path in files.items() if path.is_file()}
