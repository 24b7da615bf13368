"""LoDoPaB-CT observations: simulated low-dose parallel-beam sinograms of LIDC chest slices, HDF5, 128 slices a file.

Leuschner et al., Sci. Data 8:109 (2021), Zenodo 3384092; verified in the authors' code, jleuschn/lodopab_tech_ref
(create_dataset.py) and jleuschn/dival (lodopab_dataset.py): `data` (slices, 1000 views, 513 elements); image 362 x 362
over 26 cm x 26 cm; views at the middles of 1000 cells of [0, pi], elements at those of 513 cells of the image's
diagonal (ODL's parallel_beam_geometry: detector axis (cos t, sin t), array axes x, y). Values are line integrals over
81.35858 / m, the attenuation of 3071 HU for water 20 / m and air 0.02 / m; 4096 photons, and 0.1 where none arrived.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon.acquisition.options import RawOptions
from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.common import checks, hdf5, storage
from medrecon.formats.contents import of_raw
from medrecon.geometry import ParallelGeometry
from medrecon.geometry.placement import rotation_axis_affine

VIEWS, ELEMENTS, SIZE = 1000, 513, 362
FIELD = 260.0
"""Width of the image [mm]."""
MU_MAX = 3071 * (20 - 0.02) / 1000 + 20
"""What the observations were divided by [1/m]; line integrals have no unit, so the 1/m cancels."""
PHOTONS, MU_WATER = 4096.0, 0.02


class LoDoPaB(RawReader):
    """HDF5 with `data` of the observations' or of the ground truth's shape and nothing else."""

    name = "lodopab"
    summary = "LoDoPaB-CT observation_*.hdf5, parallel beam, 1000 views of 513 elements"
    uses = ("slices", "size", "pixel")

    def recognises(self, path: Path) -> bool:
        """Look at the shape of the only dataset."""
        return hdf5.holds(path, _fits)

    def info(self, path: Path) -> dict[str, Any]:
        """Return the shape; all else is the same in all files."""
        with hdf5.opened(path) as h5:
            data = _observations(h5)
            return of_raw(path, self, {"modality": "ct", "geometry": "parallel", "data": list(data.shape)})

    def read_scan(self, path: Path, options: RawOptions) -> Scan:
        """Read some slices; see `_scan`."""
        return _scan(path, options)


def _fits(h5: Any) -> bool:
    shape = h5["data"].shape if list(h5) == ["data"] and hdf5.is_dataset(h5["data"]) else ()
    return tuple(shape[1:]) in ((VIEWS, ELEMENTS), (SIZE, SIZE))


def _observations(h5: Any) -> Any:
    """The dataset, not read yet."""
    data = hdf5.dataset(h5, "data", (3,))
    if data.shape[1:] == (SIZE, SIZE):
        raise ValueError("data: images, the ground truth; give the observation file of the same number")
    if data.shape[1:] != (VIEWS, ELEMENTS):
        raise ValueError(f"data: expected (slices, {VIEWS} views, {ELEMENTS} elements), got shape {data.shape}")
    return data


def _scan(path: Path, options: RawOptions) -> Scan:
    """Read slices in HU as DICOM shows them, that is the ground truth's arrays transposed; slices are not neighbours.

    Water is 20 / m here and HU count from air's 0.02 / m, which makes 1 HU in 1000 difference.

    Raises:
        ValueError: names file and key: the ground truth instead of observations, another shape, NaN.
    """
    with hdf5.opened(path) as h5:
        data = _observations(h5)
        storage.check_stored(data, "data")
        start, stop = options.range(len(data))
        observed = checks.finite("data", np.asarray(data[start:stop], dtype=float), checks.NO_COUNTS)
        top = float(observed.max())
        if top > 1.01 * math.log(PHOTONS / 0.1) / MU_MAX:
            raise ValueError(
                f"data: values up to {top:.3g}, but no counts are {math.log(PHOTONS / 0.1) / MU_MAX:.3g}; "
                f"are these line integrals, or other units?"
            )
    size, pixel = options.grid(SIZE, FIELD / SIZE)
    # y of their arrays grows like the DICOM row, ours falls: the sense of rotation is the other one.
    angles = -(torch.arange(VIEWS, dtype=torch.float64) + 0.5) * math.pi / VIEWS
    return Scan(
        "ct",
        torch.from_numpy((observed * MU_MAX).astype(np.float32)),
        (size, size),
        rotation_axis_affine((size, size), pixel, 1.0),
        "HU",
        geometry=ParallelGeometry(tuple(angles.tolist()), ELEMENTS, FIELD * math.sqrt(2) / ELEMENTS),
        noise=CTNoise(PHOTONS),
        mu_water=MU_WATER,
        provenance={
            "source": path.name,
            "format": "lodopab",
            "slices": [start, stop],
            "inverse_crime": False,
            "slice_spacing": "1 mm by default: the slices are of different places",
        },
    )
