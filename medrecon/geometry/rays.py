"""Where the rays and the pixels are: parallel and fan scans, and the image grid; mm and rad.

Convention (ASTRA's): x to the right, y up, image row 0 at the top (+y), no flips. At angle t the detector axis is
(cos t, sin t); parallel rays run along (sin t, -cos t); the fan source is at source_origin * (sin t, -cos t).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def _positions(count: int, spacing: float, offset: float) -> NDArray[np.float64]:
    return np.asarray((np.arange(count) - (count - 1) / 2) * spacing + offset)


def _check_detector(name: str, angles: tuple[float, ...], count: int, spacing: float, offset: float) -> None:
    if not angles or not all(math.isfinite(a) for a in angles):
        raise ValueError(f"{name}: angles must be a non-empty sequence of finite numbers in rad")
    if count < 1 or not (math.isfinite(spacing) and spacing > 0) or not math.isfinite(offset):
        raise ValueError(
            f"{name}: needs det_count >= 1, det_spacing > 0 mm and a finite det_offset, "
            f"got {count}, {spacing}, {offset}"
        )


@dataclass(frozen=True)
class ParallelGeometry:
    """Parallel rays. Ray j of a view is the line x cos t + y sin t = (j - (det_count - 1)/2) det_spacing + det_offset.

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
        object.__setattr__(self, "angles", tuple(float(a) for a in self.angles))
        _check_detector("ParallelGeometry", self.angles, self.det_count, self.det_spacing, self.det_offset)

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
        return _positions(self.det_count, self.det_spacing, self.det_offset)

    def rays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A point on each ray and its direction, (V, D, 2) each [mm]."""
        c, s = np.cos(self.angles)[:, None], np.sin(self.angles)[:, None]
        point = self.positions()[:, None] * np.stack([c, s], axis=-1)
        return point, np.broadcast_to(np.stack([s, -c], axis=-1), point.shape)

    def subset(self, views: Sequence[int]) -> ParallelGeometry:
        """The scan with these views only."""
        return replace(self, angles=tuple(self.angles[i] for i in views))


@dataclass(frozen=True)
class FanGeometry:
    """Fan beam on a flat detector, or on an arc around the source; det_spacing and det_offset are lengths on it.

    Attributes:
        angles, det_count, det_spacing, det_offset: as for parallel rays.
        source_origin: distance of the source from the rotation centre [mm].
        origin_detector: distance of the detector from the rotation centre [mm].
        detector: 'flat', or 'arc': centred on the source, elements at equal angles det_spacing / (source_origin +
            origin_detector).
        focal_shifts: flying focal spot, for each view (angle [rad] about the rotation centre, distance [mm] away from
            it) by which the source leaves its place; the detector stays. None at all: ().
    """

    angles: tuple[float, ...]
    det_count: int
    det_spacing: float
    source_origin: float
    origin_detector: float
    det_offset: float = 0.0
    detector: Literal["flat", "arc"] = "flat"
    focal_shifts: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", tuple(float(a) for a in self.angles))
        object.__setattr__(self, "focal_shifts", tuple((float(a), float(r)) for a, r in self.focal_shifts))
        _check_detector("FanGeometry", self.angles, self.det_count, self.det_spacing, self.det_offset)
        if not (0 < self.source_origin < math.inf and 0 <= self.origin_detector < math.inf):
            raise ValueError(
                f"FanGeometry: needs source_origin > 0 mm and origin_detector >= 0 mm, "
                f"got {self.source_origin} and {self.origin_detector}"
            )
        if self.detector not in ("flat", "arc"):
            raise ValueError(f"FanGeometry: detector must be 'flat' or 'arc', got {self.detector!r}")
        if self.detector == "arc" and max(abs(self.fan_angles())) >= math.pi / 2:
            raise ValueError(
                f"FanGeometry: the arc detector opens {2 * max(abs(self.fan_angles())):.2f} rad, "
                "more than half a circle; check det_spacing and the distances"
            )
        if len(self.focal_shifts) not in (0, len(self.angles)) or not np.isfinite(self.focal_shifts).all():
            raise ValueError(
                f"FanGeometry: focal_shifts must be finite, one for each of the {len(self.angles)} "
                f"views, got {len(self.focal_shifts)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(V, D)."""
        return len(self.angles), self.det_count

    @property
    def source_detector(self) -> float:
        """Distance of the detector from the source [mm]."""
        return self.source_origin + self.origin_detector

    @property
    def magnification(self) -> float:
        """Size at the detector over size at the rotation centre."""
        return self.source_detector / self.source_origin

    @property
    def iso_spacing(self) -> float:
        """Ray spacing at the rotation centre [mm]."""
        return self.det_spacing / self.magnification

    def positions(self) -> NDArray[np.float64]:
        """(D,) places of the elements along the detector [mm], on an arc along the arc."""
        return _positions(self.det_count, self.det_spacing, self.det_offset)

    def fan_angles(self) -> NDArray[np.float64]:
        """(D,) angle of each ray to the central one [rad], without focal shifts; positive towards the detector axis."""
        u = self.positions() / self.source_detector
        return u if self.detector == "arc" else np.arctan(u)

    def sources(self) -> NDArray[np.float64]:
        """(V, 2) places of the focal spot [mm]."""
        angle, radius = np.array(self.angles), np.full(len(self.angles), self.source_origin)
        if self.focal_shifts:
            turn, out = np.array(self.focal_shifts).T
            angle, radius = angle + turn, radius + out
        return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)

    def elements(self) -> NDArray[np.float64]:
        """(V, D, 2) places of the detector elements [mm]."""
        c, s = np.cos(self.angles)[:, None], np.sin(self.angles)[:, None]
        across, ahead = self.positions(), np.full(self.det_count, self.source_detector)
        if self.detector == "arc":
            gamma = self.fan_angles()
            across, ahead = self.source_detector * np.sin(gamma), self.source_detector * np.cos(gamma)
        ahead = ahead - self.source_origin
        return np.stack([across * c - ahead * s, across * s + ahead * c], axis=-1)

    def rays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A point on each ray (its detector element) and its direction, (V, D, 2) each [mm]."""
        elements = self.elements()
        return elements, elements - self.sources()[:, None, :]

    def subset(self, views: Sequence[int]) -> FanGeometry:
        """The scan with these views only."""
        shifts = tuple(self.focal_shifts[i] for i in views) if self.focal_shifts else ()
        return replace(self, angles=tuple(self.angles[i] for i in views), focal_shifts=shifts)


@dataclass(frozen=True)
class ImageGrid:
    """Pixels of one slice.

    Attributes:
        shape: (H, W).
        spacing: (row, column) pitch [mm]; pixels need not be square.
        center: (x, y) of the middle of the image [mm] from the rotation centre.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"ImageGrid: shape must be (H, W) >= 1, got {self.shape}")
        if len(self.spacing) != 2 or not all(0 < s < math.inf for s in self.spacing):
            raise ValueError(f"ImageGrid: spacing must be two lengths > 0 mm (row, column), got {self.spacing}")
        if len(self.center) != 2 or not all(math.isfinite(c) for c in self.center):
            raise ValueError(f"ImageGrid: center must be finite (x, y) in mm, got {self.center}")

    @property
    def window(self) -> tuple[float, float, float, float]:
        """(min x, max x, min y, max y) of the outer pixel edges [mm]."""
        half_y, half_x = (n * d / 2 for n, d in zip(self.shape, self.spacing, strict=True))
        x, y = self.center
        return x - half_x, x + half_x, y - half_y, y + half_y

    @property
    def reach(self) -> float:
        """Distance of the farthest corner from the rotation centre [mm]."""
        x0, x1, y0, y1 = self.window
        return math.hypot(max(abs(x0), abs(x1)), max(abs(y0), abs(y1)))

    def coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x (W,) and y (H,) of the pixel centres [mm]; y falls with the row."""
        x0, _, _, y1 = self.window
        (height, width), (row, column) = self.shape, self.spacing
        return np.asarray(x0 + (np.arange(width) + 0.5) * column), np.asarray(y1 - (np.arange(height) + 0.5) * row)


Geometry = ParallelGeometry | FanGeometry


def astra_vectors(geometry: Geometry) -> NDArray[np.float64]:
    """ASTRA's parallel_vec or fanflat_vec rows (V, 6): ray direction or source, detector centre, detector step."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    axis = np.stack([c, s], axis=1)
    centre, first = geometry.det_offset * axis, np.stack([s, -c], axis=1)
    if isinstance(geometry, FanGeometry):
        centre, first = centre - geometry.origin_detector * first, geometry.sources()
    return np.concatenate([first, centre, geometry.det_spacing * axis], axis=1)
