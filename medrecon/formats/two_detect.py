"""2DeteCT: real fan-beam sinograms of one slice and mode, with flat and dark fields, as TIFF in one folder.

Kiss et al., Sci. Data 10:576 (2023), doi 10.1038/s41597-023-02484-6; layout and numbers verified in the authors' code,
mbkiss/2DeteCTcodes (Reconstructions_2DeteCT.py, Mode1_settings.csv): slice00001/mode1/ holds sinogram.tif (3601, 1912)
uint16, dark.tif, flat1.tif (before) and flat2.tif (after) (1, 1912); 3601 views over 360 degrees, the last repeats
the first; elements of 0.0748 mm, source to object 431.019989 mm, to detector 529.000488 mm. As there, two elements
are added up, and the 956 elements have the image's 1024 pixels over what the detector sees, in ASTRA's convention.
Their code shifts the detector by 1 of the 956 elements up to slice 2830 and in 5521 .. 5870, else by 0; here the centre
is found from the data, on which every ray is measured twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon.acquisition.flat_field import flat_field
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.acquisition.rotation_centre import full_turn_centre
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.common import checks
from medrecon.formats.contents import of_raw
from medrecon.geometry import FanGeometry
from medrecon.geometry.placement import rotation_axis_affine

FILES = ("sinogram.tif", "dark.tif", "flat1.tif", "flat2.tif")
VIEWS, ELEMENTS, BIN, SIZE = 3601, 1912, 2, 1024
PITCH = 0.0748
SOURCE_ORIGIN, SOURCE_DETECTOR = 431.019989, 529.000488


class TwoDeteCT(RawReader):
    """A folder of TIFF, one slice and mode."""

    name = "two_detect"
    summary = "2DeteCT folder (slice*/mode*) with sinogram.tif, dark.tif, flat1.tif and flat2.tif, fan beam"
    uses = ("size", "pixel", "centre")

    def recognises(self, path: Path) -> bool:
        """Look for a folder with a sinogram.tif."""
        return (path / FILES[0]).is_file()

    def info(self, path: Path) -> dict[str, Any]:
        """Return the geometry of the collection, once the four files are what they should be."""
        for name in FILES:
            _tiff(path / name, VIEWS if name == FILES[0] else 1)
        return of_raw(
            path,
            self,
            {
                "modality": "ct",
                "geometry": "fan",
                "views": VIEWS - 1,
                "elements": ELEMENTS // BIN,
                "element_mm": PITCH * BIN,
                "source_origin_mm": SOURCE_ORIGIN,
                "source_detector_mm": SOURCE_DETECTOR,
            },
        )

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read the slice; see `_scan`."""
        return _scan(path, options)


def _scan(path: Path, options: RawOptions) -> Scan:
    """Read one slice in 1/mm, noise to be estimated: the flats are averages already.

    Raises:
        ValueError: names the file: missing, not a TIFF, truncated, another shape, no counts; or no centre.
    """
    views, dark, *flats = (_tiff(path / name, VIEWS if name == FILES[0] else 1) for name in FILES)
    try:
        corrected = flat_field(views[None, :-1], (flats[0] + flats[1]) / 2, dark)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    lines = torch.from_numpy(corrected.lines)
    elements, pitch = ELEMENTS // BIN, PITCH * BIN
    centre = options.centre if options.centre is not None else full_turn_centre(lines)
    if not 0 <= centre <= elements - 1:
        raise OptionError(f"centre {centre:g}: not on the detector of {elements} elements, two of the file's each")
    size, pixel = options.grid(SIZE, elements * pitch * SOURCE_ORIGIN / SOURCE_DETECTOR / SIZE)
    rays = FanGeometry(
        angles=tuple(np.arange(VIEWS - 1) * (2 * np.pi / (VIEWS - 1))),
        det_count=elements,
        det_spacing=pitch,
        det_offset=((elements - 1) / 2 - centre) * pitch,
        source_origin=SOURCE_ORIGIN,
        origin_detector=SOURCE_DETECTOR - SOURCE_ORIGIN,
    )
    provenance = {
        "source": "/".join(path.parts[-2:]),
        "format": "two_detect",
        "binned_elements": BIN,
        "rotation_centre_elements": centre,
        "rotation_centre_from": "given" if options.centre is not None else "symmetry",
        **corrected.facts(),
    }
    return Scan(
        "ct",
        lines,
        (size, size),
        rotation_axis_affine((size, size), pixel, 1.0),
        "1/mm",
        geometry=rays,
        provenance=provenance,
    )


def _tiff(path: Path, rows: int) -> checks.Array:
    """Counts (rows, 1912 / 2), neighbouring elements added up.

    Raises:
        ValueError: missing, no TIFF, truncated, or another shape.
    """
    from PIL import Image

    if not path.is_file():
        raise ValueError(f"{path}: missing; a 2DeteCT folder holds {', '.join(FILES)}")
    try:
        with Image.open(path) as image:
            shape = (image.height, image.width)
            counts = np.asarray(image, dtype=float) if shape == (rows, ELEMENTS) else np.zeros(0)
    except Exception as error:  # Pillow raises whatever the damage leads to
        raise ValueError(f"{path}: not a TIFF image, or truncated ({error})") from error
    if shape != (rows, ELEMENTS) or counts.ndim != 2:
        raise ValueError(f"{path}: expected ({rows} views, {ELEMENTS} elements), got shape {shape}, {counts.shape}")
    checks.finite(str(path), counts)
    return counts.reshape(rows, ELEMENTS // BIN, BIN).sum(-1)
