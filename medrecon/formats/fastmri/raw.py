"""fastMRI and M4Raw HDF5: `kspace` (slices, coils, readout, phase encoding), or without coils (single coil).

Zbontar et al., arXiv:1811.08839; Lyu et al., Sci. Data 10:264 (2023). Zero frequency at n // 2, image = centred unitary
inverse FFT (fastmri/fftc.py). `mask` (phase encoding,) comes with test files. The header's encoding limits tell which
columns are zero padding; the recon matrix is what is kept of the image, after the reconstruction.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.acquisition.kspace import cartesian
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.common import hdf5, storage
from medrecon.formats.fastmri import header as fastmri_header
from medrecon.geometry import Cartesian
from medrecon.geometry.placement import isocentre_affine, moved

log = logging.getLogger(__name__)

KEPT = ("acquisition", "max", "norm")


def read_kspace(path: Path, options: RawOptions) -> Scan:
    """Read slices of the full encoded grid, to be cropped to the recon matrix; only those asked for are read.

    A column counts as sampled when it lies within the encoding limits, is in `mask` (if there is one) and is not 0. The
    pixel is the header's field of view over its matrix; where the file has no header, `pixel`, or 1 mm. Position and
    orientation are not in the file.

    Raises:
        ValueError: names file and key: no k-space, another rank, a mask that does not fit, NaN, an impossible header.
    """
    with hdf5.opened(path) as h5:
        stored = hdf5.dataset(h5, "kspace", (3, 4), "c", whole=False)
        slices = len(stored)
        start, stop = options.range(slices)
        kspace = _kspace(stored, start, stop)
        shape = (kspace.shape[-2], kspace.shape[-1])
        grid = _grid(_header(h5, options), shape, options, path)
        measured, told = cartesian.acquired(kspace), _mask(h5, shape)
        facts = {key: _plain(h5.attrs[key]) for key in KEPT if key in h5.attrs}
        targets = sorted(key for key in h5 if key.startswith("reconstruction_"))
        columns = torch.arange(shape[1])
        inside = (columns >= grid.columns[0]) & (columns < grid.columns[1])
        mask = measured & told & inside
        if not bool(mask.any()):
            raise ValueError("mask: leaves no sample of k-space; does it belong to this file?")
    provenance = {
        "source": path.name,
        "format": "fastmri",
        "slices": [start, stop],
        **facts,
        "targets": targets,
        "acceleration": mask.numel() / int(mask.sum()),
        "columns": list(grid.columns),
        "samples_outside_the_limits": int((measured & ~inside).sum()),
        "pixel_mm": list(grid.pixel),
        "pixel_from": grid.origin,
        "slice_pitch_mm": grid.pitch,
        "slice_pitch_from": grid.origin + ", without gaps",
        "place": "position and orientation are not in the file: centred, shown like an axial slice",
    }
    affine = moved(isocentre_affine(shape, grid.pixel, grid.pitch, slices), start)
    geometry = Cartesian(None if grid.crop == shape else grid.crop)
    sampled = mask if mask.ndim == 2 else mask[:, None]
    return Scan("mri", kspace * sampled, shape, affine, "a.u.", geometry=geometry, mask=mask, provenance=provenance)


def _kspace(stored: Any, start: int, stop: int) -> Tensor:
    """(Z, C, H, W) of the slices."""
    if 0 in stored.shape:
        raise ValueError(f"kspace: empty, shape {stored.shape}")
    kspace = cartesian.single("kspace", hdf5.slices(stored, "kspace", start, stop), start)
    kspace = kspace if stored.ndim == 4 else kspace[:, None]
    cartesian.check_coils("kspace", kspace)
    cartesian.check_finite("kspace", kspace, start)
    cartesian.check_measured("kspace", kspace, start)
    return kspace


def _header(h5: Any, options: RawOptions) -> fastmri_header.Header | None:
    if "ismrmrd_header" not in h5:
        return None
    if options.pixel is not None:
        raise OptionError("pixel: the header of this file tells the field of view; leave it out")
    return fastmri_header.read(h5)


@dataclass(frozen=True)
class _Grid:
    """Of the reconstruction: step of rows and columns, and of slices [mm], what is kept; the measured columns."""

    pixel: tuple[float, float]
    pitch: float
    crop: tuple[int, int]
    columns: tuple[int, int]
    origin: str


def _grid(header: fastmri_header.Header | None, shape: tuple[int, int], options: RawOptions, path: Path) -> _Grid:
    if header is not None:
        return _Grid(header.pixel(shape), header.pitch, header.crop(shape), header.padding(shape[1]), "ismrmrd_header")
    if options.pixel is None:
        log.warning("%s: no header that tells the pixel size: a pixel counts as 1 mm; --pixel sets it", path)
    pixel = options.pixel or 1.0
    origin = "given" if options.pixel else "not in the file: taken as 1 mm"
    return _Grid((pixel, pixel), pixel, shape, (0, shape[1]), origin)


def _mask(h5: Any, shape: tuple[int, int]) -> Tensor:
    """(W,) or (H, W) where the file says it was sampled: everywhere if it does not."""
    if "mask" not in h5:
        return torch.ones(shape[1], dtype=torch.bool)
    mask = hdf5.dataset(h5, "mask", (1, 2), "iufb")
    if mask.shape not in {shape, shape[1:]}:
        raise ValueError(f"mask: expected {shape[1:]}, one value a column of kspace, or {shape}, got {mask.shape}")
    storage.check_stored(mask, "mask")
    values = np.asarray(mask[()])
    if len(np.unique(values[values != 0])) > 1 or not np.isfinite(values).all():
        raise ValueError("mask: expected 0 and 1, not sampled and sampled, got other values; weights are not read")
    return torch.from_numpy(values != 0)


def _plain(value: Any) -> Any:
    """An attribute as JSON holds it."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value
