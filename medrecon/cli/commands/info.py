"""info: what is in a file or folder."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from medrecon.cli.options import Output
from medrecon.cli.show import show_json, show_tree

app = App(name="info")


@app.default
def info(path: Path, /, *, out: Output = Output()) -> int:
    """What is in a file or folder: series, grid, spacing, units; the content of a measurement file, or of raw data.

    Parameters
    ----------
    path
        DICOM folder or file, NIfTI file, measurement file, or raw data of any format medrecon reads
    """
    from medrecon import formats

    (show_json if out.json else show_tree)(formats.info(path))
    return 0
