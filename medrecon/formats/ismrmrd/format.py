"""ISMRMRD files: raw MRI of any vendor, read, and Cartesian k-space written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medrecon.acquisition.kspace_sorting import USES
from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader, ScanWriter
from medrecon.formats.common import hdf5
from medrecon.formats.contents import of_raw
from medrecon.formats.ismrmrd.raw import groups, measurement, read_acquisitions
from medrecon.formats.ismrmrd.write import write_ismrmrd


class ISMRMRD(RawReader, ScanWriter):
    """HDF5 with a group of `xml` and `data`."""

    name = "ismrmrd"
    summary = "ISMRMRD HDF5, raw MRI: Cartesian, EPI, radial, spiral"
    uses = USES
    suffix = ".h5"

    def recognises(self, path: Path) -> bool:
        """Look for a group that has `xml` and `data`."""
        return hdf5.holds(path, lambda h5: bool(groups(h5)))

    def info(self, path: Path) -> dict[str, Any]:
        """Return what the header says, and how many readouts there are; no samples are read."""
        with hdf5.opened(path) as h5:
            lines, encoding = measurement(h5)
            found = {"modality": "mri", "readouts": len(lines), "coils": int(lines.coils[-1])}
            return of_raw(path, self, {**found, **encoding.facts})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read and sort the readouts; see `read_acquisitions`."""
        return read_acquisitions(path, options)

    def write_scan(self, scan: Scan, path: Path, *, overwrite: bool = False) -> Path:
        """Write every measured line as an acquisition; see `write_ismrmrd`."""
        return write_ismrmrd(scan, path, overwrite=overwrite)
