"""The rays of a simulated CT scan: a detector that covers the image, one element for each pixel at the isocentre."""

from __future__ import annotations

import math
from typing import Literal

from medrecon.geometry import ConeGeometry, FanGeometry, ImageGrid, ParallelGeometry, Rays, VolumeGrid

Kind = Literal["fan", "parallel", "cone", "helix"]
WHOLE = ("cone", "helix")
"""Kinds that measure a volume as a whole, not slice by slice."""
SOURCE_ORIGIN = 595.0
"""Source to isocentre [mm], as in common clinical scanners."""
ORIGIN_DETECTOR = 490.6
"""Isocentre to detector [mm]."""
HELIX_ROWS = 64
"""Of the detector of a helical scan, at most: with one row for each slice of the volume it needs no more."""
HELIX_PITCH = 0.75
"""Table feed of a turn over the width of the beam at the isocentre: every point is seen over half a turn and more."""


def scan_rays(kind: Kind, views: int, arc: float | None, grid: ImageGrid | VolumeGrid) -> Rays:
    """Rays that see the whole image, or volume, from every side.

    Fans and cones: flat detector, 595 mm source to isocentre, 490.6 mm isocentre to detector.

    Args:
        views: over [0, arc), end excluded; of a helix, those of each turn.
        arc: rad; half circle for parallel and full for the others by default.

    Raises:
        ValueError: an image that reaches the source, an unknown kind, or an arc for a helix.
    """
    if kind not in ("fan", "parallel", "cone", "helix"):
        raise ValueError(f"simulate_ct: geometry must be 'fan', 'parallel', 'cone' or 'helix', got {kind!r}")
    if kind == "helix" and arc is not None:
        raise ValueError("simulate_ct: a helix makes as many turns as the volume needs; an arc is for the other scans")
    full = math.pi if kind == "parallel" else 2 * math.pi
    angles = tuple((full if arc is None else arc) * i / views for i in range(views))
    if isinstance(grid, VolumeGrid):
        fan = fan_rays(angles, grid.plane())
        return helix(fan, grid) if kind == "helix" else circle(fan, grid)
    return parallel_rays(angles, grid) if kind == "parallel" else fan_rays(angles, grid)


def arc_of(rays: Rays) -> float:
    """The arc that equally spaced views stand for [rad]."""
    step = rays.angles[1] - rays.angles[0] if len(rays.angles) > 1 else 2 * math.pi
    return step * len(rays.angles)


def parallel_rays(angles: tuple[float, ...], grid: ImageGrid) -> ParallelGeometry:
    pitch = min(grid.spacing)
    return ParallelGeometry(angles, 2 * math.ceil(grid.reach / pitch) + 2, pitch)


def fan_rays(angles: tuple[float, ...], grid: ImageGrid) -> FanGeometry:
    pitch, reach = min(grid.spacing), grid.reach
    if reach >= SOURCE_ORIGIN:
        raise ValueError(f"simulate_ct: the image reaches {reach:.0f} mm from its middle, beyond the source")
    half = SOURCE_ORIGIN * math.tan(math.asin(reach / SOURCE_ORIGIN))
    magnified = pitch * (SOURCE_ORIGIN + ORIGIN_DETECTOR) / SOURCE_ORIGIN
    return FanGeometry(angles, 2 * math.ceil(half / pitch) + 2, magnified, SOURCE_ORIGIN, ORIGIN_DETECTOR)


def circle(fan: FanGeometry, grid: VolumeGrid) -> ConeGeometry:
    """A circle around the middle of the volume; its ends stay in the beam where they are nearest to the source."""
    slices, pitch = grid.shape[0], grid.spacing[0]
    half = (slices + 1) / 2 * fan.source_origin / (fan.source_origin - grid.reach)
    return ConeGeometry(
        fan.angles,
        (2 * math.ceil(half) + 2, fan.det_count),
        (pitch * fan.magnification, fan.det_spacing),
        fan.source_origin,
        fan.origin_detector,
    )


def helix(fan: FanGeometry, grid: VolumeGrid) -> ConeGeometry:
    """A helix along the volume and half a turn beyond its ends, so that these too are seen over half a turn."""
    slices, pitch = grid.shape[0], grid.spacing[0]
    rows = max(2, min(HELIX_ROWS, slices))
    feed = HELIX_PITCH * rows * pitch
    return ConeGeometry.helix(
        len(fan.angles),
        slices * pitch / feed + 1,
        feed,
        (rows, fan.det_count),
        (pitch * fan.magnification, fan.det_spacing),
        fan.source_origin,
        fan.origin_detector,
        detector="flat",
    )
