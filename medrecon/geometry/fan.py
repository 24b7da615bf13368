"""Fan beams: at angle t the source is at source_origin * (sin t, -cos t), otherwise as `parallel` says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medrecon.geometry import detector as elements


@dataclass(frozen=True)
class FanGeometry:
    """Describes a fan beam on a flat detector, or on an arc around the source; pitch and offset are lengths on it.

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
        object.__setattr__(self, "angles", elements.view_angles(self.angles))
        shifts = elements.by_view("focal_shifts", self.focal_shifts, len(self.angles), 2)
        object.__setattr__(self, "focal_shifts", shifts)
        elements.check_elements("det_count", self.det_count, self.det_spacing, self.det_offset)
        elements.check_distances(self.source_origin, self.origin_detector, self.detector)
        if self.detector == "arc" and max(abs(self.fan_angles())) >= math.pi / 2:
            raise ValueError(
                f"geometry/det_spacing: the arc detector opens {2 * max(abs(self.fan_angles())):.2f} rad, "
                "more than half a circle; check it and the distances"
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
        return elements.positions(self.det_count, self.det_spacing, self.det_offset)

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

    def check_data(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError where line integrals of one item, (V, D), are not of this scan."""
        elements.check_line_integrals(shape, self.angles, "det_count", self.det_count)
