"""Read and write volumes, export scans; the format is chosen by content when reading, by name when writing.

A format is one module in this package: `reads(path) -> bool` and `read(path, series, modality)`,
`writes(name) -> bool` and `write(volume, path, overwrite, template, description)`, or one of the pairs. A format of
k-space to write has `EXPORTS`, its name, `SUFFIX`, and `export(scan, path, overwrite)`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from medrecon.core.discover import modules
from medrecon.core.volume import Modality, Volume

if TYPE_CHECKING:
    from medrecon.core.scan import Scan

__all__ = ["export", "exports", "read", "write"]


def read(path: str | Path, *, series: str | None = None, modality: Modality | None = None) -> Volume:
    """Read a NIfTI file, a DICOM file, a folder with a DICOM series, or the reference image of a fastMRI file.

    Args:
        path: a file or a folder.
        series: which image stack of a folder with several, or which target ("rss", "esc") of a fastMRI file; the error
            without it lists them.
        modality: what a NIfTI file holds: "CT" in HU or "MR". Without it the JSON beside the file says
            so when medrecon wrote it, else MR. DICOM says it itself.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: unknown format, or what is wrong with which file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for module in modules(__name__):
        if hasattr(module, "reads") and not hasattr(module, "USES") and module.reads(path):
            volume: Volume = module.read(path, series, modality)
            return volume
    raise ValueError(
        f"{path}: not an image medrecon reads (NIfTI .nii/.nii.gz, a DICOM file, a folder of DICOM files, "
        f"a fastMRI .h5 with its target)"
    )


def write(
    volume: Volume, path: str | Path, *, overwrite: bool = False, template: Path | None = None, description: str = ""
) -> Path:
    """Write NIfTI (name ends in .nii or .nii.gz), a DICOM series (a folder: no suffix, or a trailing slash), or an
    array for BART (.cfl).

    Args:
        volume: real values; take the magnitude of complex ones first.
        path: the output; written whole or not at all.
        overwrite: replace an existing output, which is refused otherwise.
        template: DICOM folder or file of the same patient that the derived series refers to; default: where
            the volume was read from. Without either the DICOM files have empty patient fields.
        description: how the image was made, for DerivationDescription and the NIfTI sidecar.

    Returns:
        The path written.

    Raises:
        FileExistsError: the output exists.
        ValueError: complex or non-finite values, an unknown suffix, or a template that does not fit.
    """
    name = os.fspath(path)
    if volume.data.is_complex():
        raise ValueError(f"{name}: the volume is complex; write its magnitude, volume.map(torch.abs)")
    if not bool(volume.data.isfinite().all()):
        bad = int((~volume.data.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"{name}: the volume has NaN or infinite values, first in slice {bad}; nothing written")
    for module in modules(__name__):
        if hasattr(module, "writes") and module.writes(name):
            written: Path = module.write(volume, Path(name), overwrite, template, description)
            return written
    raise ValueError(f"{name}: unknown output type; use .nii, .nii.gz, .cfl, or a folder (end it with /) for DICOM")


def exports() -> dict[str, ModuleType]:
    """The formats a scan can be exported to, by name."""
    return {module.EXPORTS: module for module in modules(__name__) if hasattr(module, "EXPORTS")}


def export(scan: Scan, path: str | Path, format: str, *, overwrite: bool = False) -> Path:
    """Write the k-space of a scan in a format of other programs; see docs/guide/raw_data.md for what each one keeps.

    Returns:
        The path written.

    Raises:
        FileExistsError: the output exists.
        ValueError: an unknown format, a name without its suffix, or a scan it cannot hold, and why.
    """
    path, known = Path(path), exports()
    if format not in known:
        near = difflib.get_close_matches(format, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown export format {format!r}; {hint}")
    module = known[format]
    if path.suffix != module.SUFFIX:
        raise ValueError(f"{path}: a {format} file ends in {module.SUFFIX}")
    if scan.modality != "mri":
        raise ValueError(f"{path}: a CT scan; {format} holds k-space")
    for index, part in enumerate(scan.data):
        if not bool(part.abs().isfinite().all()):
            raise ValueError(f"{path}: NaN or infinite samples in slice {index}; nothing written")
    written: Path = module.export(scan, path, overwrite)
    return written
