"""evaluate: how near reconstructions are to their reference."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from medrecon.cli.options import MODALITIES, Modality, Output, UsageError
from medrecon.cli.picture import check_picture, labels
from medrecon.cli.show import note, show_json, show_table, show_tree

if TYPE_CHECKING:
    from medrecon.core.volume import Volume

app = App(name="evaluate")


@app.default
def evaluate(
    *images: Path,
    grid: Literal["reference", "recon"] = "reference",
    picture: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    series: str | None = None,
    modality: Modality | None = None,
    out: Output = Output(),
) -> int:
    """Compare reconstructions with their reference, which comes last; nothing is rescaled to fit.

    Parameters
    ----------
    images
        one or more reconstructions, and last the reference they are compared with: NIfTI files or DICOM folders; the
        reference may be a fastMRI file with its target
    grid
        whose voxels are compared: reference (detail that a reconstruction is too coarse for is an error of it), or
        recon (the reference is averaged to the voxels of each reconstruction)
    picture
        PNG to write: the middle slice of the reference and of all reconstructions, their errors below
    overwrite
        replace an existing picture
    series
        which series of a reference folder with several, `medrecon info` lists them; of a fastMRI file rss or esc
    modality
        what NIfTI files hold that medrecon did not write; ct is in HU
    """
    if len(images) < 2:
        said = "is missing" if not images else f"is missing, {images[0]} is the only image"
        raise UsageError(f"REFERENCE {said}: evaluate RECONSTRUCTION... REFERENCE; see medrecon evaluate --help")
    *paths, last = images
    if picture is not None:
        check_picture("--picture", picture, overwrite, images)

    from medrecon import formats
    from medrecon.core import atomic
    from medrecon.formats.common.naming import naming
    from medrecon.quality.evaluate import evaluate as compare
    from medrecon.quality.side_by_side import side_by_side

    kind = MODALITIES[modality] if modality else None
    reference = formats.read(last, series=series, modality=kind)
    volumes = {name: formats.read(path, modality=kind) for name, path in zip(labels(paths), paths, strict=True)}
    if picture is not None:
        check_alike(volumes, grid)
    results = {}
    for path, (name, volume) in zip(paths, volumes.items(), strict=True):
        with naming(path) if len(paths) > 1 else nullcontext():
            results[name] = compare(volume, reference, grid=grid)
        tell_uncovered(name if len(paths) > 1 else "the reconstruction", results[name]["grid"])
    if picture is not None:
        with atomic.file(picture, overwrite=overwrite) as made:
            side_by_side(volumes, reference, results, made, grid=grid)
        note(f"wrote {picture}")
    if out.json:
        listed = [{"image": str(path), **result} for path, result in zip(paths, results.values(), strict=True)]
        show_json(results.popitem()[1] if len(paths) == 1 else {"reference": str(last), "images": listed})
        return 0
    first = next(iter(results.values()))
    show_tree({k: v for k, v in first.items() if k in ("modality", "units", *(["grid"] if len(paths) == 1 else []))})
    columns = {name: f"{name} [{first['units']}]" if name in WITH_UNITS else name for name in FIGURES}
    rows = table(first) if len(paths) == 1 else ranking(results)
    keys = ("what",) if len(paths) == 1 else ("what", "image", "voxels_compared")
    shown = [{**{k: row[k] for k in keys}, **{columns[name]: row[name] for name in FIGURES}} for row in rows]
    show_table(shown, (*keys, *columns.values()))
    return 0


FIGURES = ("psnr_db", "ssim", "nmse", "rmse", "bias")
WITH_UNITS = ("rmse", "bias")


def table(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows for people: the slices, then the whole, of HU within each window."""
    windows = result.get("windows", {"full": result})
    rows = []
    for row in result["slices"]:
        rows.append({"what": f"slice {row['index']}", **(row["full"] if "windows" in result else row)})
    for name, scores in windows.items():
        rows.append({"what": whole(name, scores, result["units"]), **scores})
    return rows


def ranking(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows for people of several images: window by window, the highest PSNR first."""
    rows = []
    for name in next(iter(results.values())).get("windows", {"full": None}):
        here = []
        for image, result in results.items():
            scores = result.get("windows", {"full": result})[name]
            what, compared = whole(name, scores, result["units"]), f"{100 * share(result['grid']):.1f} %"
            here.append({"what": what, "image": image, "voxels_compared": compared, **scores})
        rows += sorted(here, key=lambda row: float("-inf") if row["psnr_db"] is None else -row["psnr_db"])
    return rows


def whole(name: str, scores: dict[str, Any], units: str) -> str:
    """The name of a row over all slices, with the range that both images are clipped to, or that PSNR is of."""
    return f"all, {name} [{scores['low']:g}, {scores['high']:g}] {units}"


def share(grid: dict[str, Any]) -> float:
    """Return which part of the voxels of the whole grid was compared."""
    part: float = grid["covered"] * grid["slices_compared"] / grid["shape"][0]
    return part


def tell_uncovered(name: str, grid: dict[str, Any]) -> None:
    """Say where much of the grid is not compared."""
    if (compared := share(grid)) < 0.99:
        whose, other = ("reference", name) if grid["of"] == "reference" else ("reconstruction", "the reference")
        note(f"compared on {100 * compared:.0f} % of the {whose}'s voxels: {other} covers no more of it")


def check_alike(volumes: dict[str, Volume], grid: str) -> None:
    """Refuse a picture of images that are compared on grids of their own.

    Raises:
        UsageError: names the two images.
    """
    from medrecon.quality.evaluate import same_grid

    (name, first), *others = volumes.items()
    for other, volume in others if grid == "recon" else []:
        if not same_grid(first, volume):
            raise UsageError(
                f"--picture with --grid recon: {name} and {other} have different grids; leave --grid out, or compare "
                "them one by one"
            )
