"""The corpus's test subjects and the cases they are measured in: CT views and doses; MRI masks and trajectories."""

from __future__ import annotations

from typing import Any

import torch
from corpus import CORPUS

from medrecon import formats
from medrecon.core.scan import Scan
from medrecon.core.units import hu_to_mu, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.simulate import simulate_ct, simulate_mri, simulate_noncartesian
from medrecon.simulate.ct import reconstruction_grid, resize

SUBJECTS = {
    # The head CT holds two stacks, the T2 series misses slice 35: one part of each, by its short UID.
    "ct": ("test/ct/ct_lidc_0001", "test/ct/ct_head_ge#cc1931f2.2", "test/ct/ct_acrin_flt_013"),
    "mri": ("test/mri/mr_fnndsc_adi_t2#aadd9f93.1", "test/mri/mr_forrest_t1"),
}
CASES: dict[str, dict[str, Any]] = {
    "CT 60 views": {"modality": "ct", "views": 60, "i0": 5e4},
    "CT 30 views": {"modality": "ct", "views": 30, "i0": 5e4},
    "CT low dose": {"modality": "ct", "views": 360, "i0": 5e3},
    "MRI 4x": {"modality": "mri", "accel": 4.0, "acs": 24},
    "MRI 8x": {"modality": "mri", "accel": 8.0, "acs": 16},
    "MRI equispaced 2x": {"modality": "mri", "accel": 2.0, "acs": 24, "mask": "equispaced"},
    "MRI Poisson 6x": {"modality": "mri", "accel": 6.0, "acs": 24, "mask": "poisson"},
    "MRI partial Fourier 5/8": {"modality": "mri", "accel": 1.0, "acs": 24, "partial_fourier": 0.625},
    "MRI 48 golden-angle spokes": {"modality": "mri", "pattern": "golden", "readouts": 48},
    "MRI spiral, 6 interleaves": {"modality": "mri", "pattern": "spiral", "readouts": 6},
}


def pick(volume: Volume, count: int) -> Volume:
    """`count` slices spread over the middle 70 % of the volume."""
    depth = volume.data.shape[0]
    places = [round(depth * (0.15 + 0.7 * (i + 0.5) / count)) for i in range(count)]
    return Volume(volume.data[places], volume.affine, volume.units, volume.modality)


def subject(path: str, modality: str, slices: int) -> Volume:
    """Slices of a test subject; MRI averaged down by a whole factor until it is below 320 pixels (time on a CPU)."""
    folder, _, series = path.partition("#")
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
    g = torch.Generator().manual_seed(0)
    if settings["modality"] == "ct":
        return simulate_ct(volume, views=settings["views"], i0=settings["i0"], size=size, generator=g)
    known = {name: value for name, value in settings.items() if name != "modality"}
    return (simulate_noncartesian if "pattern" in settings else simulate_mri)(volume, **known, generator=g)
