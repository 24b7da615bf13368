"""evaluate: how near a reconstruction is to its reference."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from medrecon.cli.options import Output
from medrecon.cli.show import show_json, show_tree

app = App(name="evaluate")


@app.default
def evaluate(recon: Path, reference: Path, /, *, series: str | None = None, out: Output = Output()) -> int:
    """Compare a reconstruction with its reference, on the reference's grid; nothing is rescaled to fit.

    Parameters
    ----------
    recon
        NIfTI file or DICOM folder
    reference
        NIfTI file, DICOM folder, or fastMRI file with its target
    series
        which series of a reference folder with several, `medrecon info` lists them; of a fastMRI file rss or esc
    """
    from medrecon import formats
    from medrecon.quality.evaluate import evaluate as compare

    result = compare(formats.read(recon), formats.read(reference, series=series))
    (show_json if out.json else show_tree)(result)
    return 0
