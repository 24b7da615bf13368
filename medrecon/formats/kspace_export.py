"""Write the k-space of a scan in a format of other programs."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from medrecon.core.place import refuse
from medrecon.core.scan import Scan
from medrecon.formats.base import ScanWriter
from medrecon.formats.find import hint, scan_writers
from medrecon.geometry.placement import isocentre_affine

log = logging.getLogger(__name__)
NOWHERE = 1e-3
"""Distance [mm] from the middle of the scanner that counts as none."""


def exports() -> dict[str, ScanWriter]:
    """Return the formats a scan can be exported to, by name."""
    return {format.name: format for format in scan_writers()}


def export(scan: Scan, path: str | Path, format: str, *, overwrite: bool = False) -> Path:
    """Write the k-space of a scan in a format of other programs; see docs/guide/raw_data.md for what each one keeps.

    A warning tells where the format has no place for the position and orientation that the scan has.

    Returns:
        The path written.

    Raises:
        FileExistsError: the output exists.
        ValueError: an unknown format, a name without its suffix, or a scan it cannot hold, and why.
    """
    path = Path(path)
    made = _write(scan, path, format, overwrite)
    _warn_of_place(scan, path, exports()[format])
    return made


def _write(scan: Scan, path: Path, format: str, overwrite: bool) -> Path:
    known = exports()
    if format not in known:
        raise ValueError(f"unknown export format {format!r}; {hint(format, list(known))}")
    if path.suffix != known[format].suffix:
        raise ValueError(f"{path}: a {format} file ends in {known[format].suffix}")
    if scan.modality != "mri":
        raise ValueError(f"{path}: a CT scan; {format} holds k-space")
    for index, part in enumerate(scan.data):
        if not bool(part.abs().isfinite().all()):
            raise ValueError(f"{path}: NaN or infinite samples in slice {index}; nothing written")
    if scan.mask is not None:  # BART knows what was measured by what is not 0
        scan = replace(scan, data=scan.data * (scan.mask if scan.mask.ndim == 2 else scan.mask[:, None]))
    return known[format].write_scan(scan, path, overwrite=overwrite)


def _warn_of_place(scan: Scan, path: Path, format: ScanWriter) -> None:
    if format.keeps_place or "place" in scan.provenance:  # the file it is from had none either
        return
    column, row, pitch = torch.linalg.vector_norm(scan.affine[:3, :3], dim=0).tolist()
    height, width = scan.image_shape
    usual = isocentre_affine((height, width), (row, column), pitch, len(scan.data))
    if float((scan.affine - usual).abs().max()) > NOWHERE:
        log.warning(
            "%s: %s has no room for position and orientation: whoever reads it sees the slices axial and in the "
            "middle of the scanner; ismrmrd and the measurement file keep them",
            path,
            format.name,
        )


def check_export(scan: Scan, path: str | Path, format: str, *, overwrite: bool = False) -> None:
    """Check what `export` would refuse, by a trial with one slice elsewhere, which also tells the files it writes.

    Raises:
        FileExistsError, ValueError: as `export`.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        try:
            _write(scan.slices(0, 1), trial, format, overwrite=False)
        except ValueError as error:
            raise ValueError(str(error).replace(str(trial), str(path))) from error
        refuse([path.with_name(made.name) for made in Path(folder).iterdir()], overwrite)
    _warn_of_place(scan, path, exports()[format])
