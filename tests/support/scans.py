"""Small scans of every kind."""

from dataclasses import replace

import torch

from medrecon.core.noise import CTNoise, MRINoise
from medrecon.core.scan import Scan
from medrecon.geometry import ConeGeometry, FanGeometry, ParallelGeometry, Trajectory

AFFINE = torch.tensor([[-1.0, 0, 0.2, 5], [0, 0.9, 0, -7], [0, 0.1, 2.5, 3], [0, 0, 0, 1]], dtype=torch.float64)
"""Tilted, as by a gantry: the slices are not straight above one another."""
UPRIGHT = torch.tensor([[-1.0, 0, 0, 5], [0, 0.9, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1]], dtype=torch.float64)
ANGLES = tuple(torch.linspace(0, 6.2, 7, dtype=torch.float64).tolist())


def ct(fan: bool = True) -> Scan:
    """Four slices, seven views, nine elements."""
    rays = FanGeometry(ANGLES, 9, 1.5, 570.0, 500.0, 0.25) if fan else ParallelGeometry(ANGLES, 9, 1.5, 0.25)
    return Scan(
        modality="ct",
        data=torch.arange(4 * 7 * 9, dtype=torch.float32).reshape(4, 7, 9) / 100,
        image_shape=(12, 10),
        affine=AFFINE,
        units="HU",
        geometry=rays,
        noise=CTNoise(1e4, 5.0),
        mu_water=0.0192,
        provenance={"source": "x", "seed": 3, "inverse_crime": False, "acceleration": {"nominal": 4.0}},
    )


def cone() -> Scan:
    """Seven views of four rows and nine columns, on a helix with a flying focal spot."""
    rays = ConeGeometry(
        ANGLES,
        (4, 9),
        (2.0, 1.5),
        570.0,
        500.0,
        heights=tuple(float(z) for z in range(7)),
        det_offset=(0.5, 0.25),
        detector="arc",
        focal_shifts=tuple((0.001 * (-1) ** i, 0.0, 0.5 * (i % 2)) for i in range(7)),
    )
    data = torch.arange(7 * 4 * 9, dtype=torch.float32).reshape(1, 7, 4, 9) / 100
    return replace(ct(), data=data, image_shape=(5, 6, 7), affine=UPRIGHT, geometry=rays)


def mri(per_slice_mask: bool = False) -> Scan:
    """Three slices, two coils, 6 x 8."""
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(3, 2, 6, 8, generator=generator, dtype=torch.complex64)
    mask = torch.rand(3, 6, 8, generator=generator) > 0.5
    mask = mask if per_slice_mask else mask[0]
    return Scan(
        modality="mri",
        data=torch.where(mask.unsqueeze(-3), data, 0),
        image_shape=(6, 8),
        affine=AFFINE,
        units="a.u.",
        mask=mask,
        maps=torch.randn(3, 2, 6, 8, generator=generator, dtype=torch.complex64),
        noise=MRINoise(torch.eye(2, dtype=torch.complex64) * 0.1),
    )


def radial() -> Scan:
    """Three slices, two coils, forty samples along a trajectory, cropped."""
    g = torch.Generator().manual_seed(1)
    trajectory = (torch.rand(40, 2, generator=g, dtype=torch.float64) - 0.5) * torch.tensor([6.0, 8.0])
    return replace(
        mri(),
        data=torch.randn(3, 2, 40, generator=g, dtype=torch.complex64),
        mask=None,
        geometry=Trajectory(trajectory, torch.rand(40, generator=g), (4, 5)),
    )
