"""Write the k-space of a scan in a format of other programs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from medrecon.core.place import refuse
from medrecon.core.scan import Scan
from medrecon.formats.base import ScanWriter
from medrecon.formats.find import hint, scan_writers


def exports() -> dict[str, ScanWriter]:
    """Return the formats a scan can be exported to, by name."""
    return {format.name: format for format in scan_writers()}


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
        raise ValueError(f"unknown export format {format!r}; {hint(format, list(known))}")
    if path.suffix != known[format].suffix:
        raise ValueError(f"{path}: a {format} file ends in {known[format].suffix}")
    if scan.modality != "mri":
        raise ValueError(f"{path}: a CT scan; {format} holds k-space")
    for index, part in enumerate(scan.data):
        if not bool(part.abs().isfinite().all()):
            raise ValueError(f"{path}: NaN or infinite samples in slice {index}; nothing written")
    return known[format].write_scan(scan, path, overwrite=overwrite)


def check_export(scan: Scan, path: str | Path, format: str, *, overwrite: bool = False) -> None:
    """Check what `export` would refuse, by a trial with one slice elsewhere, which also tells the files it writes.

    Raises:
        FileExistsError, ValueError: as `export`.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        try:
            export(scan.slices(0, 1), trial, format)
        except ValueError as error:
            raise ValueError(str(error).replace(str(trial), str(path))) from error
        refuse([path.with_name(made.name) for made in Path(folder).iterdir()], overwrite)
