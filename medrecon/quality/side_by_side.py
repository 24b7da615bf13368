"""A picture of reconstructions beside their reference, of a slice that all of them were compared on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medrecon.core.volume import Volume
from medrecon.quality.evaluate import Grid, paired
from medrecon.quality.picture import comparison, display_window, upright


def side_by_side(
    volumes: Mapping[str, Volume],
    reference: Volume,
    results: Mapping[str, dict[str, Any]],
    path: Path,
    *,
    grid: Grid = "reference",
) -> None:
    """Write a PNG of the middle one of the slices that all images were compared on, with the figures of that slice.

    Args:
        volumes: by name; for grid "recon" all on one grid.
        results: by the same names, what `evaluate` says of them with this `grid`.

    Raises:
        ValueError: there is no such slice.
    """
    common = set.intersection(*({row["index"] for row in result["slices"]} for result in results.values()))
    if not common:
        raise ValueError("there is no slice that all images cover, of which a picture could be made")
    k = sorted(common)[len(common) // 2]
    whose = "reference" if grid == "reference" else "reconstruction"
    home = reference if grid == "reference" else next(iter(volumes.values()))
    images, captions, truth = {}, {}, home.data[k]
    for name, volume in volumes.items():
        pair = (
            paired(volume, reference.slices(k, k + 1), grid)
            if grid == "reference"
            else paired(volume.slices(k, k + 1), reference, grid)
        )
        images[name] = upright(torch.where(pair.mask, pair.recon.float(), torch.nan)[0], home.affine)
        truth = pair.reference.float() if grid == "reference" else torch.where(pair.mask, pair.reference, torch.nan)
        captions[name] = _figures(results[name], k)
    window, error = display_window(reference)
    x, y, _ = home.spacing
    comparison(
        upright(truth[0], home.affine),
        images,
        path,
        title=f"slice {k} of the {whose}" + (", figures of the window full" if home.units == "HU" else ""),
        units=home.units,
        window=window,
        error=error,
        captions=captions,
        pixel=(y, x),
    )


def _figures(result: Mapping[str, Any], k: int) -> str:
    """PSNR and SSIM of slice k, of HU in the full window."""
    row = next(row for row in result["slices"] if row["index"] == k)
    row = row.get("full", row)
    psnr = "no error" if row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB"
    return psnr if row["ssim"] is None else f"{psnr}, SSIM {row['ssim']:.3f}"
