"""Parallel rays.

Convention of all CT geometries (ASTRA's): x to the right, y up, image row 0 at the top (+y), no flips. At angle t the
detector axis is (cos t, sin t); parallel rays run along (sin t, -cos t). Lengths are mm, angles rad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import detector


@dataclass(frozen=True)
class ParallelGeometry:
    """Describes parallel rays: x cos t + y sin t = (j - (det_count - 1)/2) det_spacing + det_offset is ray j of a view.

    Attributes:
        angles: view angles t [rad], any order and any arc.
        det_count: number of detector elements.
        det_spacing: element pitch [mm].
        det_offset: shift of the detector along its axis [mm], for example a quarter of the pitch.
    """

    angles: tuple[float, ...]
    det_count: int
    det_spacing: float
    det_offset: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", detector.view_angles(self.angles))
        detector.check_elements("det_count", self.det_count, self.det_spacing, self.det_offset)

    @property
    def iso_spacing(self) -> float:
        """Ray spacing at the rotation centre [mm]."""
        return self.det_spacing

    @property
    def shape(self) -> tuple[int, int]:
        """(V, D)."""
        return len(self.angles), self.det_count

    def positions(self) -> NDArray[np.float64]:
        """(D,) places of the elements along the detector axis [mm]."""
        return detector.positions(self.det_count, self.det_spacing, self.det_offset)

    def rays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A point on each ray and its direction, (V, D, 2) each [mm]."""
        c, s = np.cos(self.angles)[:, None], np.sin(self.angles)[:, None]
        point = self.positions()[:, None] * np.stack([c, s], axis=-1)
        return point, np.broadcast_to(np.stack([s, -c], axis=-1), point.shape)

    def subset(self, views: Sequence[int]) -> ParallelGeometry:
        """The scan with these views only."""
        return replace(self, angles=tuple(self.angles[i] for i in views))

    def check_data(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError where line integrals of one item, (V, D), are not of this scan."""
        detector.check_line_integrals(shape, self.angles, "det_count", self.det_count)
