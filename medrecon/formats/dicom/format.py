"""DICOM images: a file or a folder of them read, a derived series written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrecon.core import place
from medrecon.core.stack import Stack
from medrecon.core.volume import Modality, Volume
from medrecon.formats.base import ImageReader, ImageWriter, Slices
from medrecon.formats.ct_pd.scanner import is_projection
from medrecon.formats.dicom import files, geometry
from medrecon.formats.dicom import series as dicom_series
from medrecon.formats.dicom.origin import find_sources
from medrecon.formats.dicom.read import read_series
from medrecon.formats.dicom.write import PATTERN, write_series


class Dicom(ImageReader, ImageWriter):
    """CT and MR image storage, single slices and multi-frame."""

    name = "dicom"
    summary = "DICOM images, a file or a folder of files"
    images = "a DICOM file, a folder of DICOM files"
    suffixes = ()

    def recognises(self, path: Path) -> bool:
        """Look for a DICOM file, at any depth in a folder, that is no projection of raw CT."""
        first = files.first_file(path)
        return first is not None and not is_projection(first)

    def info(self, path: Path) -> dict[str, Any]:
        """Return the image stacks by label; no pixels are read."""
        stacks = dicom_series.stacks(files.headers(path))
        return {"path": str(path), "kind": "DICOM", "series": {stack.label: _told(stack) for stack in stacks}}

    def read_image(self, path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
        """Read an image stack; see `read_series`."""
        return read_series(path, series, modality)

    def read_slices(
        self, path: Path, slices: Slices, series: str | None = None, modality: Modality | None = None
    ) -> Volume:
        """Read some slices of an image stack; see `read_series`."""
        return read_series(path, series, modality, slices)

    def check(
        self, path: Path, source: Mapping[str, Any], *, overwrite: bool = False, template: Path | None = None
    ) -> None:
        """Look at what the folder holds, and at the images that the series is to be derived from."""
        place.refuse_folder(path, PATTERN, overwrite)
        find_sources(source, template)

    def write_image(
        self,
        stack: Stack,
        path: Path,
        *,
        overwrite: bool = False,
        template: Path | None = None,
        description: str = "",
        beside: Mapping[Path, str] | None = None,
    ) -> Path:
        """Write one file a slice, one after the other."""
        return write_series(stack, path, overwrite=overwrite, template=template, description=description, beside=beside)


def _told(stack: dicom_series.Stack) -> dict[str, Any]:
    first = stack.frames[0]
    header, thickness, padding = first.header, first.get("SliceThickness"), first.get("PixelPaddingValue")
    syntax = header.file_meta.TransferSyntaxUID
    return {
        "label": stack.label,
        "modality": str(first.get("Modality")),
        "description": str(first.get("SeriesDescription") or ""),
        "slices": len(stack.frames),
        "rows_columns": [int(header.Rows), int(header.Columns)],
        "pixel_spacing_mm": [float(s) for s in first.get("PixelSpacing")],
        "slice_thickness_mm": float(thickness) if thickness else None,
        "place": geometry.plane(stack.frames),
        "tells_apart": stack.told,
        "padding": None if padding is None else str(padding),
        "compression": str(getattr(syntax, "name", syntax)),
        "problem": stack.problem,
    }
