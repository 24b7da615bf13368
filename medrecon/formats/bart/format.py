"""BART .cfl/.hdr: k-space both ways, images out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrecon.acquisition.options import RawOptions
from medrecon.core import place
from medrecon.core.scan import Scan
from medrecon.core.stack import Stack
from medrecon.formats.bart import cfl, write
from medrecon.formats.bart.raw import read_kspace
from medrecon.formats.base import ImageWriter, RawReader, ScanWriter
from medrecon.formats.contents import of_raw


class Bart(RawReader, ScanWriter, ImageWriter):
    """A pair of files: numbers, and a text with their dimensions."""

    name = "bart"
    summary = "BART .cfl/.hdr, Cartesian k-space in two or three dimensions"
    uses = ("slices", "pixel")
    suffix = write.SUFFIX
    keeps_place = False
    suffixes = (write.SUFFIX,)

    def recognises(self, path: Path) -> bool:
        """Look for one of a pair of .cfl and .hdr files."""
        return cfl.is_cfl(path)

    def info(self, path: Path) -> dict[str, Any]:
        """Return the dimensions above 1; the numbers stay on disk."""
        sizes = dict(zip(cfl.DIMENSIONS, cfl.read_cfl(path).shape, strict=True))
        return of_raw(path, self, {"modality": "mri", "dimensions": {k: n for k, n in sizes.items() if n > 1}})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read slices of k-space; see `read_kspace`."""
        return read_kspace(path, options)

    def write_scan(self, scan: Scan, path: Path, *, overwrite: bool = False) -> Path:
        """Write k-space, coil maps and sampling pattern; see `write_kspace`."""
        return write.write_kspace(scan, path, overwrite=overwrite)

    def check(
        self, path: Path, source: Mapping[str, Any], *, overwrite: bool = False, template: Path | None = None
    ) -> None:
        """Look at both files of the pair, and at what an export of that name left beside it."""
        place.refuse((*cfl.pair(path), *cfl.left_by_another(path, write.PARTS)), overwrite)

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
        """Write the values alone: the format has no place for more."""
        arrays = {path: write.stacked(stack.whole().data[:, None])}
        stale = cfl.left_by_another(path, write.PARTS)
        return cfl.write_all(arrays, overwrite=overwrite, beside=beside, stale=stale)
