"""What Cartesian k-space formats share: which samples were acquired, and that they are numbers."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.core.scan_ranges import check_scale
from medrecon.geometry.placement import isocentre_affine, moved

log = logging.getLogger(__name__)

MOST_COILS = 128
LEAST_PIXELS = 4
"""Rows or columns of an image."""
PEAK = 10.0
"""Times as much energy as a row beside it the middle of k-space has; coils receive more alike."""


def single(key: str, samples: NDArray[Any], first: int) -> Tensor:
    """Return (Z, ...) complex samples of any precision and byte order, of slices `first` on, as complex64.

    Raises:
        ValueError: samples that are too large or too small for it, by which factor and in which slice; NaN pass.
    """
    for index, part in enumerate(samples, first):
        with np.errstate(invalid="ignore", over="ignore"):
            sizes = np.abs(part)
        check_scale(f"{key}: slice {index}", float(sizes[np.isfinite(sizes)].max(initial=0)))
    return torch.from_numpy(np.array(samples, dtype=np.complex64, order="C"))


def acquired(kspace: Tensor) -> Tensor:
    """Find where any coil has a sample other than 0: (H, W) if all slices of (Z, C, H, W) agree, else (Z, H, W)."""
    mask = (kspace != 0).any(1)
    return mask[0] if bool((mask == mask[0]).all()) else mask


def check_coils(key: str, kspace: Tensor) -> None:
    """Check that (Z, C, H, W) can be in this order: more coils than any scanner has, and those with k-space's
    peak in their middle, are rows or columns.

    Raises:
        ValueError: too many coils, or too few rows or columns.
    """
    coils, height, width = kspace.shape[1:]
    if coils > MOST_COILS or min(height, width) < LEAST_PIXELS or _rows_for_coils(kspace):
        last = width <= MOST_COILS < coils or width < min(coils, height)
        hint = "the coils are on the last axis?" if last else "another order of axes?"
        raise ValueError(
            f"{key}: {coils} coils of {height} x {width} samples; {hint} The order is (slices, coils, "
            f"readout, phase encoding): numpy.moveaxis brings it there"
        )


def _rows_for_coils(kspace: Tensor) -> bool:
    """Whether the energy of (Z, C, H, W) lies in the middle of the many "coils", as k-space along rows does."""
    coils = kspace.shape[1]
    if coils < 16 or coils <= kspace.shape[-1]:
        return False
    energy = kspace.abs().double().square().nan_to_num(0.0, 0.0, 0.0).sum((0, 2, 3))
    return int(energy.argmax()) == coils // 2 and bool(energy[coils // 2] > PEAK * energy.median())


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


def bare_scan(
    kspace: Tensor, first: int, count: int, pixel: float | None, facts: dict[str, Any], slab: bool = False
) -> Scan:
    """Make a scan of slices `first` on, of `count`, of k-space (Z, C, H, W) from a file that holds numbers only.

    It is centred, of a `slab` the zero of its third axis, shown like an axial slice, with pixels of `pixel` or 1 mm, as
    the provenance says.

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
    affine = moved(isocentre_affine(shape, (mm, mm), mm, count, slab), first)
    return Scan("mri", kspace, shape, affine, "a.u.", mask=mask, provenance=provenance)
