"""The reference image of a fastMRI file, `reconstruction_rss` or `reconstruction_esc`, as a volume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon.core.volume import Modality, Volume
from medrecon.formats.common import hdf5, storage
from medrecon.formats.fastmri import header as fastmri_header
from medrecon.geometry.placement import isocentre_affine

log = logging.getLogger(__name__)

PREFIX = "reconstruction_"


def read_target(path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
    """Read the target of the file's track: `reconstruction_esc` of single-coil k-space, `reconstruction_rss` of many.

    The grid is that of the k-space beside it, reconstructed and cropped as fastMRI does: from (n - m) // 2. Without
    k-space or header the pixel is 1 mm.

    Args:
        series: "rss" or "esc", where the file has both.

    Raises:
        ValueError: names the file: truncated, no target, NaN, or CT asked for.
    """
    if modality == "CT":
        raise ValueError(f"{path}: holds MR images, and CT was asked for")
    with hdf5.opened(path) as h5:
        name = _choose(h5, series)
        stored = h5[name]
        if not hdf5.is_dataset(stored) or stored.ndim != 3:
            got = f"shape {stored.shape}" if hdf5.is_dataset(stored) else "a group"
            raise ValueError(f"{name}: expected images (slices, rows, columns), got {got}")
        storage.check_stored(stored, name)
        values = np.asarray(stored[()], dtype=np.float32)
        header = fastmri_header.read(h5) if "ismrmrd_header" in h5 else None
        grid = h5["kspace"].shape[-2:] if "kspace" in h5 else values.shape[-2:]
    bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
    if bad.size:
        raise ValueError(f"{path}: {name}: NaN or infinite values, first in slice {bad[0]}")
    shape = (int(grid[0]), int(grid[1]))
    if header is None:
        log.warning(
            "%s: no header that tells the pixel size: a pixel counts as 1 mm; NIfTI and DICOM hold it, and --pixel "
            "of medrecon import sets it for the k-space",
            path,
        )
    pixel, pitch = (header.pixel(shape), header.pitch) if header is not None else ((1.0, 1.0), 1.0)
    affine = isocentre_affine(shape, pixel, pitch, len(values))
    for axis, (n, m) in enumerate(zip(shape, values.shape[1:], strict=True)):
        affine[:3, 3] += (n - m) // 2 * affine[:3, 1 - axis]
    return Volume(torch.from_numpy(values), affine, "a.u.", "MR", {"fastmri": str(path), "target": name})


def targets(h5: Any) -> list[str]:
    """List the reference images of an open file."""
    return sorted(key for key in h5 if key.startswith(PREFIX))


def _choose(h5: Any, series: str | None) -> str:
    known = targets(h5)
    listed = ", ".join(map(str, h5)) or "nothing"
    if not known:
        raise ValueError(f"no reference image, only {listed}; medrecon import reads k-space")
    if series is not None:
        wanted = series if series.startswith(PREFIX) else PREFIX + series
        if wanted not in known:
            raise ValueError(f"{wanted} missing; the file has {listed}")
        return wanted
    if len(known) == 1:
        return known[0]
    if "kspace" in h5:
        track = PREFIX + ("esc" if h5["kspace"].ndim == 3 else "rss")
        if track in known:
            return track
    raise ValueError(
        f"holds {' and '.join(known)}; choose one with series / --series, such as {known[0].removeprefix(PREFIX)}"
    )
