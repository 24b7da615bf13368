"""ISMRMRD files: raw MRI of any vendor, read, and Cartesian k-space written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medrecon.acquisition.kspace.kspace_sorting import USES, scan_of
from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader, ScanWriter
from medrecon.formats.common import hdf5
from medrecon.formats.contents import of_raw
from medrecon.formats.ismrmrd.groups import choose, describe, groups
from medrecon.formats.ismrmrd.raw import measurement
from medrecon.formats.ismrmrd.write import write_ismrmrd


class ISMRMRD(RawReader, ScanWriter):
    """HDF5 with a group of `xml` and `data`."""

    name = "ismrmrd"
    summary = "ISMRMRD HDF5, raw MRI: Cartesian, EPI, radial, spiral"
    uses = ("group", *USES)
    suffix = ".h5"

    def recognises(self, path: Path) -> bool:
        """Look for a group that has `xml` and `data`."""
        return hdf5.holds(path, lambda h5: bool(groups(h5)))

    def info(self, path: Path) -> dict[str, Any]:
        """Return what the header says, and how many readouts there are, group by group; no samples are read."""
        with hdf5.opened(path) as h5:
            names = groups(h5)
            if len(names) > 1:
                return of_raw(path, self, {"modality": "mri", "groups": {name: describe(h5, name) for name in names}})
            name, _ = choose(h5, None)
            found = describe(h5, name)
            if "error" in found:
                raise ValueError(found["error"])
            return of_raw(path, self, {"modality": "mri", "group": name, **found})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read one contrast, cardiac phase, repetition and set of one group, in the file's own intensity units.

        Raises:
            ValueError: names the file, the key or the readout: a missing or wrong header, truncated or NaN samples,
                counters that do not fit the header, coils that differ, several groups and no choice.
            ImportError: `ismrmrd` is not installed.
        """
        with hdf5.opened(path) as h5:
            name, others = choose(h5, options.group)
            lines, encoding = measurement(h5, name, (options.where or {}).get("encoding"))
            facts = {"source": path.name, "format": "ismrmrd", "group": name, "readouts": len(lines)}
            return scan_of(lines, encoding, options, facts | ({"other_groups": others} if others else {}))

    def write_scan(self, scan: Scan, path: Path, *, overwrite: bool = False) -> Path:
        """Write every measured line as an acquisition; see `write_ismrmrd`."""
        return write_ismrmrd(scan, path, overwrite=overwrite)
