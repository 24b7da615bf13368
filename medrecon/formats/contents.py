"""What `info` and `import` say of a scan: shapes, geometry, noise and where it came from, as JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.core.scan_values import geometry_values, noise_values
from medrecon.formats.base import RawReader


def of_raw(path: Path, format: RawReader, found: dict[str, Any]) -> dict[str, Any]:
    """Return what `info` says of raw data: the format, and what was found."""
    return {"path": str(path), "kind": "raw data", "format": format.name, **found}


def of_scan(scan: Scan) -> dict[str, Any]:
    """Return what a file said of a scan, and what had to be found or assumed."""
    noise = {
        k: {"shape": list(v.shape), "mean": float(v.real.double().mean())} if isinstance(v, Tensor) else v
        for k, v in noise_values(scan).items()
    }
    return {
        "data": list(scan.data.shape),
        "image_shape": list(scan.image_shape),
        "units": scan.units,
        "geometry": brief(geometry_values(scan)),
        "noise": noise or "estimated from the data",
        "provenance": scan.provenance,
    }


def brief(geometry: dict[str, Any]) -> dict[str, Any]:
    """Return the geometry of a scan without its angles, and of what else changes from view to view the range."""
    return {k: _range(v) for k, v in geometry.items() if k != "angles"}


def _range(value: Any) -> Any:
    return {"min": value.amin(0).tolist(), "max": value.amax(0).tolist()} if isinstance(value, Tensor) else value
