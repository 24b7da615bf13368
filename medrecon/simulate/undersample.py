"""Retrospective undersampling of a scan that was measured: fewer of its own samples, with its own noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from medrecon.core.scan import Scan


def undersample(scan: Scan, mask: Tensor, *, details: Mapping[str, Any] | None = None, keep_maps: bool = False) -> Scan:
    """Keep the samples of Cartesian k-space that are both measured and in the mask.

    What the scanner left out, such as zero padding, stays out. Coil maps are dropped unless `keep_maps`: those of the
    whole scan would bring in samples that are left out here; without, they are estimated from what is kept.

    Args:
        mask: bool, (H, W), or (W,) of whole columns as fastMRI's.
        details: how the mask was made (nominal acceleration, ACS, seed), kept in the provenance beside the true
            acceleration: samples measured over samples kept, and grid over samples kept.

    Raises:
        ValueError: not Cartesian k-space, a mask of another size or type, or none of the samples left.
    """
    if scan.modality != "mri" or scan.noncartesian:
        raise ValueError("undersample: only Cartesian k-space; leave out views or spokes with their angles instead")
    shape = tuple(scan.image_shape)
    if mask.dtype != torch.bool or tuple(mask.shape) not in {shape, shape[1:]}:
        raise ValueError(f"undersample: expected a bool mask {shape} or {shape[1:]}, got {mask.dtype} {[*mask.shape]}")
    measured = scan.mask if scan.mask is not None else (scan.data != 0).flatten(0, 1).any(0)
    kept = measured & mask
    if not bool(kept.flatten(-2).any(-1).all()):
        raise ValueError("undersample: the mask leaves none of the measured samples")
    record = {
        **(details or {}),
        "acceleration": int(measured.sum()) / int(kept.sum()),
        "acceleration_of_grid": kept.numel() / int(kept.sum()),
        "coil_maps": "none in the scan" if scan.maps is None else "kept" if keep_maps else "dropped",
    }
    provenance = {**scan.provenance, "acceleration": record["acceleration_of_grid"], "undersampled": record}
    data = scan.data * (kept if kept.ndim == 2 else kept[:, None])
    return replace(scan, data=data, mask=kept, maps=scan.maps if keep_maps else None, provenance=provenance)
