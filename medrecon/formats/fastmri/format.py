"""fastMRI and M4Raw files: k-space to reconstruct, and often the reference image of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medrecon.acquisition.options import RawOptions
from medrecon.core.scan import Scan
from medrecon.core.volume import Modality, Volume
from medrecon.formats.base import ImageReader, RawReader, ScanWriter
from medrecon.formats.common import hdf5
from medrecon.formats.contents import of_raw
from medrecon.formats.fastmri import header as fastmri_header
from medrecon.formats.fastmri.raw import read_kspace
from medrecon.formats.fastmri.target import read_target, targets
from medrecon.formats.fastmri.write import write_fastmri


class FastMRI(ImageReader, RawReader, ScanWriter):
    """HDF5 with `kspace`, `reconstruction_rss` or `reconstruction_esc`, and an ISMRMRD header."""

    name = "fastmri"
    summary = "fastMRI and M4Raw HDF5, Cartesian k-space of one or many coils"
    images = "a fastMRI .h5 with its target"
    uses = ("slices", "pixel")
    suffix = ".h5"
    keeps_place = False

    def recognises(self, path: Path) -> bool:
        """Look for k-space or a reference image, unless the file calls itself something else by `format`."""
        return hdf5.holds(
            path, lambda h5: "format" not in h5.attrs and (hdf5.is_dataset(h5.get("kspace")) or bool(targets(h5)))
        )

    def info(self, path: Path) -> dict[str, Any]:
        """Return shapes of k-space and reference images, and the grid of the header."""
        with hdf5.opened(path) as h5:
            found: dict[str, Any] = {"modality": "mri"}
            if "kspace" in h5:
                found["data"] = list(hdf5.dataset(h5, "kspace", (3, 4), "c", whole=False).shape)
            found["targets"] = {name: list(hdf5.dataset(h5, name, (3,)).shape) for name in targets(h5)}
            if "ismrmrd_header" in h5:
                header = fastmri_header.read(h5)
                found |= {"encoded_matrix": list(header.encoded), "encoded_mm": list(header.encoded_fov)}
                found |= {"image_matrix": list(header.recon), "image_mm": list(header.recon_fov)}
            return of_raw(path, self, found)

    def read_image(self, path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
        """Read the reference image; see `read_target`."""
        return read_target(path, series, modality)

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read k-space; see `read_kspace`."""
        return read_kspace(path, options)

    def write_scan(self, scan: Scan, path: Path, *, overwrite: bool = False) -> Path:
        """Write k-space, mask, header and target; see `write_fastmri`."""
        return write_fastmri(scan, path, overwrite=overwrite)
