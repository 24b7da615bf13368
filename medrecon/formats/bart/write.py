"""To BART: a scan's k-space, coil maps and sampling pattern, or a volume, as .cfl/.hdr pairs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.formats.bart import cfl

log = logging.getLogger(__name__)

SUFFIX = ".cfl"
PARTS = ("_maps", "_mask")
"""Of a scan, beside its k-space."""


def write_kspace(scan: Scan, path: Path, *, overwrite: bool = False) -> Path:
    """Write name.cfl, k-space, and, where the scan has them, name_maps.cfl and name_mask.cfl, for `bart pics`.

    Rows are READ, columns PHS1, slices SLICE. BART has no place for lengths, position, noise and crop. Maps and masks
    of an earlier export of this name do not stay.

    Raises:
        FileExistsError: one of the files exists and `overwrite` is off; nothing is written then.
        ValueError: not Cartesian k-space.
    """
    if scan.modality != "mri" or scan.noncartesian:
        raise ValueError(f"{path}: BART's Cartesian k-space is written, not {scan.modality} along other samples")
    if any(n % 2 for n in scan.image_shape):
        log.warning("%s: rows or columns are odd; bart fft takes them, bart pics 0.8 reconstructs them wrongly", path)
    parts = {"": stacked(scan.data)}
    if scan.maps is not None:
        parts["_maps"] = stacked(scan.maps)
    if scan.mask is not None:
        # `bart pics -p` wants every slice's pattern, only the coils' axis may be 1.
        parts["_mask"] = stacked(scan.mask.expand(len(scan.data), *scan.image_shape)[:, None])
    arrays = {path.with_name(path.stem + suffix + SUFFIX): array for suffix, array in parts.items()}
    stale = cfl.left_by_another(path, [part for part in PARTS if part not in parts])
    return cfl.write_all(arrays, overwrite=overwrite, stale=stale)


def stacked(data: Tensor) -> NDArray[np.complex64]:
    """Return (Z, C, H, W) with BART's axes: (H, W, 1, C, 1, ..., Z), a view where it is complex64 already."""
    array: NDArray[np.complex64] = data.detach().cpu().resolve_conj().numpy().astype(np.complex64, copy=False)
    between = tuple(range(4, cfl.SLICE))
    return np.expand_dims(array.transpose(2, 3, 1, 0), (cfl.PHS2, *between))
