"""The measurement file of medrecon itself: a sinogram or k-space with all a reconstruction needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from medrecon.core.scan import FORMAT, load_scan
from medrecon.formats.base import Format
from medrecon.formats.common import hdf5
from medrecon.formats.contents import brief


class MeasurementFile(Format):
    """medrecon's own HDF5; see docs/guide/measurement_file.md."""

    name = "measurement"
    summary = "a medrecon measurement .h5, which medrecon recon takes"

    def recognises(self, path: Path) -> bool:
        """Look for medrecon's mark in an HDF5 file."""
        return hdf5.holds(path, lambda h5: h5.attrs.get("format") == FORMAT)

    def info(self, path: Path) -> dict[str, Any]:
        """Return shapes, geometry, acceleration, noise and provenance."""
        scan = load_scan(path)
        found: dict[str, Any] = {
            "path": str(path),
            "kind": f"{scan.modality} measurement",
            "data": list(scan.data.shape),
            "image_shape": list(scan.image_shape),
            "units": scan.units,
        }
        if scan.modality == "ct":
            found["geometry"], found["views"] = brief(scan.geometry), len(scan.geometry["angles"])
        if scan.mask is not None:
            sampled = max(1, int(scan.mask.sum()))
            found["coils"], found["acceleration"] = scan.data.shape[1], round(scan.mask.numel() / sampled, 3)
        noise = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in scan.noise.items()}
        return {**found, "noise": noise, "provenance": scan.provenance}
