"""DICOM-CT-PD projections as raw data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.contents import of_raw
from medrecon.formats.ct_pd.raw import read_projections
from medrecon.formats.ct_pd.views import is_ct_pd, read_ct_pd


class CTPD(RawReader):
    """A folder of helical projections, as LDCT-and-Projection-data has them."""

    name = "ct_pd"
    summary = "DICOM-CT-PD, a folder with one projection a file"
    uses = ("slices", "size", "pixel", "centre", "slice_spacing", "direct")

    def recognises(self, path: Path) -> bool:
        """Look at one DICOM file of a folder."""
        return is_ct_pd(path)

    def info(self, path: Path) -> dict[str, Any]:
        """Return views and geometry; no pixels are read."""
        scan = read_ct_pd(path, pixels=False)
        rows, columns = scan.data.shape[1:]
        found = {
            "modality": "ct",
            "geometry": "cone",
            "views": len(scan.angles),
            "rows": rows,
            "columns": columns,
            "detector": scan.detector,
            "element_mm": list(scan.det_spacing),
            "source_origin_mm": float(scan.radii.mean()),
            "source_detector_mm": scan.source_detector,
            "turns": round(float(np.ptp(scan.angles)) / (2 * np.pi), 3),
            "heights_mm": [float(scan.heights.min()), float(scan.heights.max())],
            "photons": scan.photons is not None,
            "manufacturer": scan.manufacturer,
        }
        return of_raw(path, self, found)

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read slices of the helix; see `read_projections`."""
        return read_projections(path, options)
