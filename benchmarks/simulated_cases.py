"""The corpus's test subjects and the cases they are measured in: CT views and doses; MRI masks and trajectories."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from corpus import CORPUS
from validation_slices import validation_slices

from medrecon import formats
from medrecon.core.scan import Scan
from medrecon.core.units import hu_to_mu, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.simulate import simulate_ct, simulate_mri, simulate_noncartesian
from medrecon.simulate.ct import reconstruction_grid, resize

SUBJECTS = {
    # The head CT holds two stacks, each fnndsc series misses a slice: one part of each, by its short UID.
    "ct": ("test/ct/ct_lidc_0001", "test/ct/ct_head_ge#cc1931f2.2", "test/ct/ct_acrin_flt_013"),
    "mri": (
        "test/mri/mr_fnndsc_adi_t2#aadd9f93.1",
        "test/mri/mr_forrest_t1",
        "test/mri/mr_rembrandt_hf0990_flair",
        "test/mri/mr_hip_pdfs_cor.nii.gz",
        "test/mri/mr_papaya_pd",
        "test/mri/mr_sct_t2s_cervical.nii.gz",
        "test/mri/mr_vsseg001_t1ce",
        "test/mri/mr_cptac_c3l03728_t1se",
        "test/mri/mr_rembrandt_hf1097_flair",
        "test/mri/mr_sag_anon_t1",
        "test/mri/mr_rorden_t2w.nii.gz",
        "test/mri/mr_fnndsc_adi_t1#ff4719fd.1",
        "test/mri/mr_rorden_chris_t1.nii.gz",
        "test/mri/mr_rorden_chris_PD.nii.gz",
        "test/mri/mr_rorden_flair.nii.gz",
    ),
}
"""Series of the test subjects, in an order that makes the first few differ in contrast and anatomy."""
VALIDATION = {
    "ct": ("val/ct_256#10", "val/ct_256#100", "val/ct_256#110"),
    "mri": ("val/mri_256#106", "val/mri_256#256", "val/mri_256#266"),
}
"""Slices of validation subjects by number, for settings and for trying a script out."""
PEOPLE = ("mr_fnndsc_adi", "mr_rorden")
"""Subjects of several series, whose names begin so; perhaps not all of the second are of one person."""
CASES: dict[str, dict[str, Any]] = {
    "CT 30 views": {"modality": "ct", "views": 30, "i0": 5e4},
    "MRI 8x": {"modality": "mri", "accel": 8.0, "acs": 16},
    "CT 60 views": {"modality": "ct", "views": 60, "i0": 5e4},
    "CT 20 views": {"modality": "ct", "views": 20, "i0": 5e4},
    "CT 90 degrees": {"modality": "ct", "views": 90, "arc": math.pi / 2, "i0": 5e4},
    "MRI 4x": {"modality": "mri", "accel": 4.0, "acs": 24},
    "MRI 12x": {"modality": "mri", "accel": 12.0, "acs": 12},
    "MRI 34 spokes": {"modality": "mri", "pattern": "golden", "readouts": 34},
    "CT low dose": {"modality": "ct", "views": 360, "i0": 5e3},
    "MRI equispaced 2x": {"modality": "mri", "accel": 2.0, "acs": 24, "mask": "equispaced"},
    "MRI Poisson 6x": {"modality": "mri", "accel": 6.0, "acs": 24, "mask": "poisson"},
    "MRI partial Fourier 5/8": {"modality": "mri", "accel": 1.0, "acs": 24, "partial_fourier": 0.625},
    "MRI 48 golden-angle spokes": {"modality": "mri", "pattern": "golden", "readouts": 48},
    "MRI spiral, 6 interleaves": {"modality": "mri", "pattern": "spiral", "readouts": 6},
}
TABLE = tuple(CASES)[:9]
"""The cases of the big table, in the order in which they are run."""
LATENT = ("latino", "psld", "resample")
"""Solvers that are given the latent prior of a modality; the others get the one of pixels."""


def prior_of(solver: str, modality: str) -> str:
    """Return the name of the shipped prior that a solver is measured with."""
    return modality if solver in LATENT else f"{modality}_pixel"


def person(series: str) -> str:
    """Return the subject of a series: figures of the same one are no independent ones."""
    name = series if series.startswith("val/") else Path(series.partition("#")[0]).name.partition(".")[0]
    return next((who for who in PEOPLE if name.startswith(who)), name)


def pick(volume: Volume, count: int) -> Volume:
    """`count` slices spread over the middle 70 % of the volume."""
    depth = volume.data.shape[0]
    places = [round(depth * (0.15 + 0.7 * (i + 0.5) / count)) for i in range(count)]
    return Volume(volume.data[places], volume.affine, volume.units, volume.modality)


def subject(path: str, modality: str, slices: int) -> Volume:
    """Slices of a test subject; MRI averaged down by a whole factor to no more than 320 pixels (time on a CPU).

    Of a validation subject the slice that its path names.
    """
    folder, _, series = path.partition("#")
    if folder.startswith("val/"):
        return validation_slices(modality, [int(series)])
    volume = pick(formats.read(CORPUS / folder, series=series or None), slices)
    if modality == "ct":
        return volume
    rows, columns = volume.data.shape[-2:]
    factor = -(-max(rows, columns) // 320)
    affine = volume.affine @ torch.diag(torch.tensor([factor, factor, 1.0, 1.0], dtype=torch.float64))
    return Volume(resize(volume.data.float(), (rows // factor, columns // factor)), affine, "a.u.", "MR")


def reference(volume: Volume, modality: str, size: int) -> Volume:
    if modality == "mri":
        return volume
    grid, affine = reconstruction_grid(volume, size)
    return Volume(mu_to_hu(resize(hu_to_mu(volume.data.float()), grid.shape)), affine, "HU", "CT")


def simulate(case: str, volume: Volume, size: int) -> Scan:
    """The case's measurement of a volume."""
    settings = CASES[case]
    known = {name: value for name, value in settings.items() if name != "modality"}
    g = torch.Generator().manual_seed(0)
    if settings["modality"] == "ct":
        return simulate_ct(volume, size=size, generator=g, **known)
    return (simulate_noncartesian if "pattern" in settings else simulate_mri)(volume, **known, generator=g)
