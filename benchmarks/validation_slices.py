"""Validation slices of the corpus as volumes: what benchmarks choose settings on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from medrecon.training.slices import read_sheets
from medrecon.volume import Volume

CORPUS = Path(os.environ.get("MEDRECON_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
PITCH = {"ct": 1.4, "mri": 1.0}
"""mm, assumed: the sheets do not carry it."""


def validation_slices(modality: str, numbers: Sequence[int]) -> Volume:
    """Slices of the validation sheets by number, 256 x 256."""
    ct, pitch = modality == "ct", PITCH[modality]
    sheets = read_sheets(CORPUS / "val" / f"{modality}_256", 1.0, -1024.0 if ct else 0.0)
    values = sheets.values(torch.tensor(numbers))
    affine = torch.diag(torch.tensor([-pitch, -pitch, 2.0, 1.0], dtype=torch.float64))
    return Volume(values.clamp(-1024, 3071), affine, "HU", "CT") if ct else Volume(values, affine, "a.u.", "MR")
