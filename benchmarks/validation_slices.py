"""Validation slices of the corpus as volumes: what benchmarks choose settings on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from corpus import CORPUS

from medrecon.core.volume import Volume
from medrecon.training.images.slices import read_sheets

PITCH = {"ct": 1.4, "mri": 1.0}
"""mm, assumed: the sheets do not carry it."""


def validation_slices(modality: str, numbers: Sequence[int]) -> Volume:
    """Slices of the validation sheets by number, 256 x 256."""
    ct, pitch = modality == "ct", PITCH[modality]
    sheets = read_sheets(CORPUS / "val" / f"{modality}_256", 1.0, -1024.0 if ct else 0.0)
    values = sheets.values(torch.tensor(numbers))
    affine = torch.diag(torch.tensor([-pitch, -pitch, 2.0, 1.0], dtype=torch.float64))
    return Volume(values.clamp(-1024, 3071), affine, "HU", "CT") if ct else Volume(values, affine, "a.u.", "MR")
