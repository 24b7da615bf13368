"""What Cartesian k-space formats share: which samples were acquired, and that they are numbers."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.formats.common.placement import isocentre_affine, moved

log = logging.getLogger(__name__)

MOST_COILS = 128


def acquired(kspace: Tensor) -> Tensor:
    """Find where any coil has a sample other than 0: (H, W) if all slices of (Z, C, H, W) agree, else (Z, H, W)."""
    mask = (kspace != 0).any(1)
    return mask[0] if bool((mask == mask[0]).all()) else mask


def check_coils(key: str, kspace: Tensor) -> None:
    """Check that (Z, C, H, W) can be in this order: more coils than any scanner has are rows or columns.

    Raises:
        ValueError: too many coils, or rows or columns of a single sample.
    """
    coils, height, width = kspace.shape[1:]
    if coils > MOST_COILS or min(height, width) < 2:
        hint = "the coils are on the last axis?" if width <= MOST_COILS < coils else "another order of axes?"
        raise ValueError(
            f"{key}: {coils} coils of {height} x {width} samples; {hint} The order is (slices, coils, "
            f"readout, phase encoding): numpy.moveaxis brings it there"
        )


def check_finite(key: str, kspace: Tensor, first: int) -> None:
    """Check k-space (Z, C, H, W) of slices `first` and on.

    Raises:
        ValueError: NaN or infinite samples, how many and in which slice.
    """
    for index, part in enumerate(kspace, first):
        if bad := int((~torch.isfinite(torch.view_as_real(part)).all(-1)).sum()):
            raise ValueError(
                f"{key}: {bad} NaN or infinite samples in slice {index}; leave it out with slices, or set "
                f"them to 0, which counts as not acquired"
            )


def check_measured(key: str, kspace: Tensor, first: int) -> None:
    """Check that every slice of (Z, C, H, W), counted from `first`, has a sample.

    Raises:
        ValueError: a slice has none.
    """
    empty = (kspace == 0).flatten(1).all(1).nonzero()
    if len(empty):
        raise ValueError(
            f"{key}: slice {first + int(empty[0])} is 0 everywhere, nothing was measured; leave it out with slices"
        )


def bare_scan(kspace: Tensor, first: int, count: int, pixel: float | None, facts: dict[str, Any]) -> Scan:
    """Make a scan of slices `first` on, of `count`, of k-space (Z, C, H, W) from a file that holds numbers only.

    It is centred, shown like an axial slice, with pixels of `pixel` or 1 mm, as the provenance says.

    Raises:
        ValueError: an axis that cannot be coils, NaN and the slice, nothing measured.
    """
    check_coils("k-space", kspace)
    check_finite("k-space", kspace, first)
    check_measured("k-space", kspace, first)
    if pixel is None:
        log.warning("%s: no pixel size in the file: a pixel counts as 1 mm; --pixel sets it", facts["source"])
    mask, shape, mm = acquired(kspace), (kspace.shape[-2], kspace.shape[-1]), pixel or 1.0
    provenance = {
        **facts,
        "slices": [first, first + len(kspace)],
        "acceleration": mask.numel() / int(mask.sum()),
        "pixel_mm": mm,
        "pixel_from": "given" if pixel else "not in the file: taken as 1 mm",
        "place": "not in the file: centred, shown like an axial slice",
    }
    affine = moved(isocentre_affine(shape, (mm, mm), mm, count), first)
    return Scan("mri", kspace, shape, affine, "a.u.", mask=mask, provenance=provenance)
