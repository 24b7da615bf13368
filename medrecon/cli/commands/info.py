"""info: what is in a file or folder."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from medrecon.cli.options import MODALITIES, Modality, Output
from medrecon.cli.show import note, show_json, show_tree

app = App(name="info")


@app.default
def info(path: Path, /, *, modality: Modality | None = None, out: Output = Output()) -> int:
    """Show what is in a file or folder: series, grid, spacing and units of images; what measurement and raw files hold.

    Parameters
    ----------
    path
        DICOM folder or file, NIfTI file, measurement file, or raw data of any format medrecon reads
    modality
        what a NIfTI file holds that medrecon did not write
    """
    from medrecon import formats

    found = formats.info(path, MODALITIES[modality] if modality else None)
    (show_json if out.json else show_tree)(found)
    if found.get("kind") == "raw data":
        note(f"raw data of the format {found['format']}: medrecon import {path} -o scan.h5 --dry-run checks them")
    return 0
