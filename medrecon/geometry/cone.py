"""Cone-beam scans, circular or helical, and the volume grid; mm and rad.

Convention: in the plane as in `ct_geometry`; z along the rotation axis. Slices and detector rows are counted along +z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry.rays import FanGeometry, ImageGrid


@dataclass(frozen=True)
class ConeGeometry:
    """Cone beam; every detector row is the fan of `plane`, shifted along z.

    Attributes:
        angles: view angles [rad], any order and any arc.
        det_shape: (rows, columns) of the detector.
        det_spacing: (row, column) pitch at the detector [mm]; columns of an arc along the arc.
        source_origin, origin_detector: distances from the rotation axis [mm].
        heights: z of the source and of the detector's middle in each view [mm]; (): 0, a circular scan.
        det_offset: (row, column) shift of the detector's middle [mm].
        detector: 'flat', or 'arc': a cylinder around the line through the source along z.
        focal_shifts: flying focal spot, for each view (angle [rad], distance [mm], z [mm]) by which the source leaves
            its place; the detector stays. None at all: ().
    """

    angles: tuple[float, ...]
    det_shape: tuple[int, int]
    det_spacing: tuple[float, float]
    source_origin: float
    origin_detector: float
    heights: tuple[float, ...] = ()
    det_offset: tuple[float, float] = (0.0, 0.0)
    detector: Literal["flat", "arc"] = "flat"
    focal_shifts: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", tuple(float(a) for a in self.angles))
        object.__setattr__(self, "heights", tuple(float(z) for z in self.heights))
        object.__setattr__(self, "focal_shifts", tuple((float(a), float(r), float(z)) for a, r, z in self.focal_shifts))
        for name in ("det_shape", "det_spacing", "det_offset"):
            if len(getattr(self, name)) != 2 or not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"ConeGeometry: {name} must be two finite numbers, (row, column)")
        if self.det_shape[0] < 1 or self.det_spacing[0] <= 0:
            raise ValueError(
                f"ConeGeometry: needs at least one detector row and a row pitch > 0 mm, "
                f"got {self.det_shape[0]} and {self.det_spacing[0]}"
            )
        for name in ("heights", "focal_shifts"):
            values = getattr(self, name)
            if len(values) not in (0, len(self.angles)) or not np.isfinite(values).all():
                raise ValueError(
                    f"ConeGeometry: {name} must be finite, one for each of the {len(self.angles)} views, "
                    f"got {len(values)}"
                )
        self.plane()  # checks the rest

    @classmethod
    def helix(
        cls,
        views_per_turn: int,
        turns: float,
        pitch: float,
        det_shape: tuple[int, int],
        det_spacing: tuple[float, float],
        source_origin: float,
        origin_detector: float,
        *,
        start: float = 0.0,
        detector: Literal["flat", "arc"] = "arc",
        det_offset: tuple[float, float] = (0.0, 0.0),
    ) -> ConeGeometry:
        """A helical scan around z = 0; `pitch` is the table feed of one turn [mm], negative against z."""
        turn = np.arange(round(views_per_turn * turns)) / views_per_turn
        heights = pitch * (turn - turn.mean())
        return cls(
            tuple(start + 2 * math.pi * turn),
            det_shape,
            det_spacing,
            source_origin,
            origin_detector,
            tuple(heights),
            det_offset,
            detector,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(V, R, D)."""
        return len(self.angles), *self.det_shape

    def plane(self) -> FanGeometry:
        """The scan seen along z: the fan that every detector row shares."""
        return FanGeometry(
            self.angles,
            self.det_shape[1],
            self.det_spacing[1],
            self.source_origin,
            self.origin_detector,
            self.det_offset[1],
            self.detector,
            tuple(shift[:2] for shift in self.focal_shifts),
        )

    def source_heights(self) -> NDArray[np.float64]:
        """(V,) z of the focal spot [mm]."""
        shifts = np.array(self.focal_shifts)[:, 2] if self.focal_shifts else 0.0
        return self._heights() + shifts

    def row_heights(self) -> NDArray[np.float64]:
        """(V, R) z of the detector rows [mm]."""
        rows, pitch = self.det_shape[0], self.det_spacing[0]
        row = (np.arange(rows) - (rows - 1) / 2) * pitch + self.det_offset[0]
        return self._heights()[:, None] + row

    def _heights(self) -> NDArray[np.float64]:
        return np.array(self.heights) if self.heights else np.zeros(len(self.angles))

    def subset(self, views: Sequence[int]) -> ConeGeometry:
        """The scan with these views only."""
        return replace(
            self,
            angles=tuple(self.angles[i] for i in views),
            heights=tuple(self.heights[i] for i in views) if self.heights else (),
            focal_shifts=tuple(self.focal_shifts[i] for i in views) if self.focal_shifts else (),
        )


@dataclass(frozen=True)
class VolumeGrid:
    """Voxels of a volume.

    Attributes:
        shape: (Z, H, W).
        spacing: (slice, row, column) pitch [mm].
        center: (x, y, z) of the middle of the volume [mm] from the rotation centre.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or len(self.spacing) != 3 or len(self.center) != 3:
            raise ValueError(
                f"VolumeGrid: needs shape (Z, H, W), spacing (slice, row, column) and center (x, y, z), "
                f"got {self.shape}, {self.spacing}, {self.center}"
            )
        if self.shape[0] < 1 or not 0 < self.spacing[0] < math.inf or not math.isfinite(self.center[2]):
            raise ValueError(
                f"VolumeGrid: needs at least one slice, a slice pitch > 0 mm and a finite centre, "
                f"got {self.shape[0]}, {self.spacing[0]}, {self.center[2]}"
            )
        self.plane()  # checks the rest

    def plane(self) -> ImageGrid:
        """The grid of one slice."""
        return ImageGrid(self.shape[1:], self.spacing[1:], self.center[:2])

    @property
    def reach(self) -> float:
        """Distance of the farthest corner from the rotation axis [mm]."""
        return self.plane().reach

    def heights(self) -> NDArray[np.float64]:
        """(Z,) z of the slices' middles [mm]."""
        count = self.shape[0]
        return np.asarray(self.center[2] + (np.arange(count) - (count - 1) / 2) * self.spacing[0])


def check_source_outside(geometry: ConeGeometry, grid: VolumeGrid) -> None:
    """Raises ValueError where the volume, seen along z, reaches the path of the source."""
    closest = float(np.hypot(*geometry.plane().sources().T).min())
    if closest <= grid.reach:
        raise ValueError(
            f"cone beam: the volume reaches {grid.reach:.1f} mm from the rotation axis, beyond the source "
            f"at {closest:.1f} mm; check the units"
        )
