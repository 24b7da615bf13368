"""Cone beams, circular or helical.

Convention: in the plane as `fan` says; z along the rotation axis. Slices and detector rows are counted along +z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import detector as elements
from medrecon.geometry.fan import FanGeometry
from medrecon.geometry.grid import VolumeGrid


@dataclass(frozen=True)
class ConeGeometry:
    """Describes a cone beam; every detector row is the fan of `plane`, shifted along z.

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
        object.__setattr__(self, "angles", elements.view_angles(self.angles))
        elements.check_elements("det_shape", self.det_shape, self.det_spacing, self.det_offset)
        elements.check_distances(self.source_origin, self.origin_detector, self.detector)
        for name in ("det_shape", "det_spacing", "det_offset"):
            object.__setattr__(self, name, tuple(np.asarray(getattr(self, name)).tolist()))
        for name, numbers in (("heights", 1), ("focal_shifts", 3)):
            values = elements.by_view(name, getattr(self, name), len(self.angles), numbers)
            object.__setattr__(self, name, values)
        self.plane()  # checks the opening of an arc

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
        """Return a helical scan around z = 0; `pitch` is the table feed of one turn [mm], negative against z."""
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

    def check_data(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError where line integrals of one item, (V, R, D), are not of this scan."""
        elements.check_line_integrals(shape, self.angles, "det_shape", self.det_shape)


def check_source_outside(geometry: ConeGeometry, grid: VolumeGrid) -> None:
    """Raises ValueError where the volume, seen along z, reaches the path of the source."""
    closest = float(np.hypot(*geometry.plane().sources().T).min())
    if closest <= grid.reach:
        raise ValueError(
            f"cone beam: the volume reaches {grid.reach:.1f} mm from the rotation axis, beyond the source "
            f"at {closest:.1f} mm; check the units"
        )
