"""What is in a file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medrecon.core.scan import Scan


def inspect(path: Path) -> dict[str, Any]:
    """Series, grid, spacing and units of images; content and noise of a measurement file. No patient data.

    Raises:
        FileNotFoundError: no such path.
        ValueError: nothing in it that medrecon reads.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix == ".h5":
        return _measurement(path)
    from medrecon.formats import nifti

    return _volume(path) if nifti.reads(path) else _dicom(path)


def _measurement(path: Path) -> dict[str, Any]:
    from torch import Tensor

    from medrecon.core.scan_values import noise_values
    from medrecon.formats.measurement_file import load_scan

    scan = load_scan(path)
    found: dict[str, Any] = {
        "path": str(path),
        "kind": f"{scan.modality} measurement",
        "data": list(scan.data.shape),
        "image_shape": list(scan.image_shape),
        "units": scan.units,
    }
    if scan.modality == "ct":
        found["geometry"], found["views"] = brief(scan), len(scan.rays.angles)
    if scan.mask is not None:
        from medrecon.sampling.lines import acceleration

        found["coils"], found["acceleration"] = scan.data.shape[1], round(acceleration(scan.mask), 3)
    noise = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in noise_values(scan).items()}
    return {**found, "noise": noise, "provenance": scan.provenance}


def brief(scan: Scan) -> dict[str, Any]:
    """The geometry of a scan without its angles; of what else changes from view to view the range."""
    from torch import Tensor

    from medrecon.core.scan_values import geometry_values

    return {
        k: {"min": v.amin(0).tolist(), "max": v.amax(0).tolist()} if isinstance(v, Tensor) else v
        for k, v in geometry_values(scan).items()
        if k != "angles"
    }


def _volume(path: Path) -> dict[str, Any]:
    from medrecon import formats

    volume = formats.read(path)
    data = volume.data
    return {
        "path": str(path),
        "kind": "NIfTI",
        "modality": volume.modality,
        "units": volume.units,
        "shape_zyx": list(data.shape),
        "spacing_xyz_mm": [round(s, 5) for s in volume.spacing],
        "range": [float(data.min()), float(data.max())],
        "affine_ras": volume.affine.tolist(),
    }


def _dicom(path: Path) -> dict[str, Any]:
    from medrecon.formats.dicom import series as dicom_series

    series = []
    for stack in dicom_series.stacks(dicom_series.headers(path)):
        first = stack.headers[0]
        syntax = getattr(getattr(first, "file_meta", None), "TransferSyntaxUID", None)
        series.append(
            {
                "label": stack.label,
                "modality": str(first.Modality),
                "description": str(first.get("SeriesDescription", "")),
                "slices": len(stack.headers),
                "rows_columns": [int(first.Rows), int(first.Columns)],
                "pixel_spacing_mm": [float(s) for s in first.get("PixelSpacing") or []],
                "slice_thickness_mm": float(first.SliceThickness) if first.get("SliceThickness") else None,
                "compression": getattr(syntax, "name", str(syntax)),
                "problem": stack.problem,
            }
        )
    return {"path": str(path), "kind": "DICOM", "series": {s["label"]: s for s in series}}
