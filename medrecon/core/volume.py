"""Volume: voxels, where they are, and what their values mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Units = Literal["HU", "1/mm", "a.u."]
Modality = Literal["CT", "MR"]
VOXELS = (1e-6, 1e4)
"""Voxel sizes that there are [mm]: from 1 nm to 10 m."""
FARTHEST = 1e6
"""Distance of a voxel from the scanner's middle that no scan reaches [mm]."""
FLAT = 1e-6
"""Volume of a voxel over that of a box with its edges, below which the three edges lie in a plane."""


def check_affine(affine: Tensor, whose: str = "Volume: the affine") -> None:
    """Check that a (4, 4) float64 affine, voxel to mm, places the voxels of a scan, however small they are.

    Raises:
        ValueError: not finite, singular, no affine, or sizes and distances that no scan has.
    """
    if not bool(torch.isfinite(affine).all()):
        raise ValueError(f"{whose} is singular or not finite")
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"{whose} ends in the row {affine[3].tolist()}, not 0, 0, 0, 1")
    sizes = [math.hypot(*column) for column in affine[:3, :3].T.tolist()]
    if not all(VOXELS[0] <= size <= VOXELS[1] for size in sizes) or float(affine[:3, 3].abs().max()) > FARTHEST:
        if not all(sizes):
            raise ValueError(f"{whose} is singular or not finite: a voxel has no extent")
        raise ValueError(
            f"{whose} has voxels of {', '.join(f'{size:.3g}' for size in sizes)} mm, the first at "
            f"{', '.join(f'{x:.4g}' for x in affine[:3, 3].tolist())} mm; no scan has these, check the units"
        )
    if abs(float(torch.linalg.det(affine[:3, :3] / torch.tensor(sizes, dtype=torch.float64)))) < FLAT:
        raise ValueError(f"{whose} is singular or not finite: the edges of a voxel lie in a plane")


@dataclass(frozen=True, eq=False)
class Volume:
    """data (Z, Y, X), real or complex; affine maps voxel (x, y, z, 1) to RAS+ mm; oblique and left-handed allowed.

    `source` carries what a writer needs to refer back to the origin (for DICOM: the paths and digests of its files);
    never patient data.

    Raises:
        ValueError: what was expected and what came.
    """

    data: Tensor
    affine: Tensor
    units: Units
    modality: Modality
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data", "affine"):
            if not isinstance(getattr(self, name), Tensor):
                raise TypeError(f"Volume: {name}: expected a torch.Tensor, got {type(getattr(self, name)).__name__}")
        if self.data.ndim != 3:
            raise ValueError(f"Volume: expected data (Z, Y, X), got shape {tuple(self.data.shape)}")
        if tuple(self.affine.shape) != (4, 4) or self.affine.dtype != torch.float64:
            got = f"{self.affine.dtype} {tuple(self.affine.shape)}"
            raise ValueError(f"Volume: expected a float64 4x4 affine, got {got}")
        check_affine(self.affine)
        if self.units not in get_args(Units) or self.modality not in get_args(Modality):
            raise ValueError(f"Volume: unknown units {self.units!r} or modality {self.modality!r}")

        if self.data.is_complex() and self.modality == "CT":
            raise ValueError("Volume: CT is real, got complex data; take its magnitude")
        if self.units == "HU" and self.modality == "MR":
            raise ValueError("Volume: an MR volume is not in HU")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (x, y, z) in mm."""
        x, y, z = torch.linalg.vector_norm(self.affine[:3, :3], dim=0).tolist()
        return x, y, z

    def numpy(self) -> NDArray[Any]:
        """The values (Z, Y, X) as a NumPy array, which shares their memory; `numpy.asarray(volume)` gives them too."""
        values: NDArray[Any] = self.data.detach().cpu().resolve_conj().resolve_neg().numpy()
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def like(self, values: Any) -> Volume:
        """The same grid, units and modality with other values, of NumPy or torch: (Z, Y, X), or (Y, X) of one slice.

        Raises:
            ValueError: values of another shape.
        """
        data = torch.as_tensor(values).clone()
        if tuple(data.shape) != tuple(self.data.shape) and (1, *data.shape) != tuple(self.data.shape):
            raise ValueError(f"Volume.like: expected values {tuple(self.data.shape)}, got {tuple(data.shape)}")
        return replace(self, data=data.reshape(self.data.shape), source={})

    def map(self, function: Callable[[Tensor], Tensor], units: Units | None = None) -> Volume:
        """The same grid with new values."""
        data = function(self.data)
        if data.shape != self.data.shape:
            raise ValueError(f"Volume.map: the grid {tuple(self.data.shape)} became {tuple(data.shape)}")
        return replace(self, data=data, units=units or self.units)

    def slices(self, start: int, stop: int) -> Volume:
        """Slices start..stop-1, with the affine moved along.

        Raises:
            ValueError: not within 0..Z.
        """
        if not 0 <= start <= stop <= len(self.data):
            raise ValueError(f"slices {start}:{stop} are not within 0:{len(self.data)}")
        affine = self.affine.clone()
        affine[:3, 3] += affine[:3, 2] * start
        return replace(self, data=self.data[start:stop], affine=affine)
