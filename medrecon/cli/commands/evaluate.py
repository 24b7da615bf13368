"""evaluate: how near a reconstruction is to its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from medrecon.cli.options import MODALITIES, Modality, Output
from medrecon.cli.show import note, show_json, show_table, show_tree

app = App(name="evaluate")


@app.default
def evaluate(
    recon: Path,
    reference: Path,
    /,
    *,
    series: str | None = None,
    modality: Modality | None = None,
    out: Output = Output(),
) -> int:
    """Compare a reconstruction with its reference, on the reference's grid; nothing is rescaled to fit.

    Parameters
    ----------
    recon
        NIfTI file or DICOM folder
    reference
        NIfTI file, DICOM folder, or fastMRI file with its target
    series
        which series of a reference folder with several, `medrecon info` lists them; of a fastMRI file rss or esc
    modality
        what NIfTI files hold that medrecon did not write; ct is in HU
    """
    from medrecon import formats
    from medrecon.quality.evaluate import evaluate as compare

    kind = MODALITIES[modality] if modality else None
    result = compare(formats.read(recon, modality=kind), formats.read(reference, series=series, modality=kind))
    grid = result["grid"]
    if (covered := grid["covered"] * grid["slices_compared"] / grid["shape"][0]) < 0.99:
        note(f"compared on {100 * covered:.0f} % of the reference's voxels: the reconstruction covers no more of it")
    if out.json:
        show_json(result)
        return 0
    show_tree({k: v for k, v in result.items() if k in ("modality", "units", "grid")})
    columns = {name: f"{name} [{result['units']}]" if name in WITH_UNITS else name for name in FIGURES}
    rows = [{"what": row["what"], **{columns[name]: row[name] for name in FIGURES}} for row in table(result)]
    show_table(rows, ("what", *columns.values()))
    return 0


FIGURES = ("psnr_db", "ssim", "nmse", "rmse", "bias")
WITH_UNITS = ("rmse", "bias")


def table(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows for people: the slices, then the whole, of CT within each window."""
    windows = result.get("windows", {"full": result})
    rows = []
    for row in result["slices"]:
        rows.append({"what": f"slice {row['index']}", **(row["full"] if "windows" in result else row)})
    for name, scores in windows.items():
        low, high = scores["low"], scores["high"]
        rows.append({"what": f"all, {name} [{low:g}, {high:g}] {result['units']}", **scores})
    return rows
