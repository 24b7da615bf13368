"""DICOM-CT-PD (LDCT-and-Projection-data): helical projections as fan-beam slices or as they are.

See docs/guide/ct_pd.md.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.acquisition.helical import fan_geometry, mismatch, reach, rebin_counted, views_near
from medrecon.acquisition.options import RawOptions
from medrecon.core.noise import CTNoise, photons_by_view
from medrecon.core.scan import Scan
from medrecon.corrections.field_of_view import field_of_view_radius
from medrecon.formats.ct_pd.views import Projections, read_ct_pd, read_views
from medrecon.geometry import ConeGeometry, FanGeometry

log = logging.getLogger(__name__)

SIZE = 512
THINNEST = 1.0
"""Default distance of the slices, unless the detector rows are coarser at the axis [mm]."""
BUDGET = 2**31
"""Projections held at one time [bytes]."""
SAME_RADIUS = 0.1
AS_READ = "as read"
CLEARLY = 0.9
UP = {"S": (0, 1, 0), "P": (0, -1, 0), "DR": (-1, 0, 0), "DL": (1, 0, 0)}
"""What lies up, in RAS, of a patient supine, prone, on the right and on the left side."""


def read_projections(path: Path, options: RawOptions) -> Scan:
    """Read slices every `slice_spacing` mm along the range the helix reaches, each a full turn of fan-beam views.

    With `direct` the cone-beam views of these slices, as they are, and a volume of all that they see: beyond the
    range of the slices it takes up what would otherwise be an inconsistency, and is no image.

    Projections are read as they are needed, at most 2 GiB at a time; with `direct` they are all held.

    Raises:
        ValueError: as `read_ct_pd` and `rebin`.
    """
    projections = read_ct_pd(path, pixels=False)
    if options.centre is not None:
        columns = projections.data.shape[2]
        column = (options.centre - (columns - 1) / 2) * projections.det_spacing[1]
        projections = replace(projections, det_offset=(projections.det_offset[0], column))
    geometry = cone_geometry(projections)
    fan = fan_geometry(geometry)
    low, high = reach(geometry, fan)
    readings = compare_readings(projections, geometry, (low + high) / 2)
    step = options.slice_spacing or max(THINNEST, geometry.det_spacing[0] / fan.magnification)
    heights = low + step * np.arange(1 + math.floor((high - low) / step), dtype=np.float64)
    heights = heights[slice(*options.range(len(heights)))]
    size, pixel = options.grid(SIZE, 2 * field_of_view_radius(fan) / SIZE)
    rays: FanGeometry | ConeGeometry = fan
    method: dict[str, object] = {"rebinning": "single slice (Noo 1999), 180-degree linear"}
    if options.direct:
        rays, data, photons, heights, method = _direct(projections, geometry, size * pixel / 2, heights, step)
    else:
        data, photons = _rebinned(projections, geometry, fan, heights)
    return Scan(
        "ct",
        data,
        (len(heights), size, size) if options.direct else (size, size),
        _affine(projections.patient_position, size, pixel, heights[0], step),
        "HU",
        geometry=rays,
        noise=None if photons is None else CTNoise(photons_by_view(photons, data.ndim)),
        mu_water=projections.mu_water,
        provenance={
            "source": path.name,
            "format": "ct_pd",
            **method,
            "table_feed_mm": 2 * math.pi * float(np.polyfit(geometry.angles, geometry.heights, 1)[0]),
            "opposite_rays_differ": {name: round(value, 4) for name, value in readings.items()},
            "patient_position": projections.patient_position or "unknown, taken as HFS",
        },
    )


def cone_geometry(projections: Projections) -> ConeGeometry:
    """Return the rays of the scan, for three-dimensional operators.

    Raises:
        ValueError: the detector does not stay on a circle.
    """
    radius = float(projections.radii.mean())
    if np.abs(projections.radii - radius).max() > SAME_RADIUS:
        raise ValueError(
            f"the distance from the axis varies by {np.ptp(projections.radii):.2f} mm along the scan; "
            "only circles and helices can be reconstructed"
        )
    rows, columns = projections.data.shape[1:]
    shifts = projections.focal_shifts
    return ConeGeometry(
        tuple(projections.angles),
        (rows, columns),
        projections.det_spacing,
        radius,
        projections.source_detector - radius,
        tuple(projections.heights),
        projections.det_offset,
        projections.detector,
        tuple(map(tuple, shifts)) if shifts.any() else (),
    )


def compare_readings(projections: Projections, geometry: ConeGeometry, z: float) -> dict[str, float]:
    """Measure the `mismatch` of opposite rays at height z: as the files were read, and were they read otherwise.

    So a scanner that fills the tags another way gives itself away, except that a scan and its mirror image agree with
    themselves alike. Warns where another reading fits better.
    """
    start, stop = views_near(geometry, z, z)
    data, part = read_views(projections, start, stop), geometry.subset(range(start, stop))
    (up, across), pitch = part.det_offset, part.det_spacing[1]
    readings = {
        AS_READ: (data, part),
        "columns reversed": (data.flip(2), replace(part, det_offset=(up, -across))),
        "rows reversed": (data.flip(1), replace(part, det_offset=(-up, across))),
        "central column from the other end": (data, replace(part, det_offset=(up, -across - pitch))),
    }
    if part.focal_shifts:
        turned = tuple((-a, -r, -h) for a, r, h in part.focal_shifts)
        readings["focal spot reversed"] = (data, replace(part, focal_shifts=turned))
    found = {name: mismatch(*reading, z) for name, reading in readings.items()}
    best = min(found, key=found.__getitem__)
    if found[best] < CLEARLY * found[AS_READ]:
        log.warning(
            "opposite rays differ by %.3g, but by %.3g with %s: the files may mean something else than "
            "docs/guide/ct_pd.md says",
            found[AS_READ],
            found[best],
            best,
        )
    return found


def _rebinned(
    projections: Projections, geometry: ConeGeometry, fan: FanGeometry, heights: NDArray[np.float64]
) -> tuple[Tensor, Tensor | None]:
    """Fans (Z, N, D) and their photons, block by block of slices: the views of a block fit in `BUDGET`."""
    view_bytes = 4 * math.prod(geometry.det_shape)
    dense = len(geometry.angles) / np.ptp(geometry.heights)
    feed = abs(2 * math.pi * float(np.polyfit(geometry.angles, geometry.heights, 1)[0]))
    step = heights[1] - heights[0] if len(heights) > 1 else 1.0
    block = max(1, int((BUDGET / view_bytes / dense - feed) / step))
    out, worth = (torch.empty(len(heights), *fan.shape) for _ in range(2))
    photons = torch.ones(len(geometry.angles), 1) if projections.photons is None else projections.photons
    for i in range(0, len(heights), block):
        some = heights[i : i + block]
        start, stop = views_near(geometry, some[0], some[-1])
        log.info("slices %d to %d of %d from views %d to %d", i, i + len(some), len(heights), start, stop)
        out[i : i + block], worth[i : i + block] = rebin_counted(
            read_views(projections, start, stop),
            photons[start:stop],
            geometry.subset(range(start, stop)),
            some.tolist(),
            fan,
        )
    return out, None if projections.photons is None else worth


def _direct(
    projections: Projections, geometry: ConeGeometry, reach_xy: float, heights: NDArray[np.float64], step: float
) -> tuple[ConeGeometry, Tensor, Tensor | None, NDArray[np.float64], dict[str, object]]:
    """Rays, views (1, V, R, D) and photons (1, V, 1, D) of some slices, and the heights of all slices they see.

    The rays are counted from the middle of these slices.
    """
    start, stop = views_near(geometry, heights[0], heights[-1])
    rays = geometry.subset(range(start, stop))
    # The beam is widest where a ray leaves the field of view.
    wide = (rays.source_origin + reach_xy) / (rays.source_origin + rays.origin_detector)
    source, rows = rays.source_heights(), rays.row_heights()
    below, above = ((source + (rows[:, end] - source) * wide) for end in (0, -1))
    before = max(0, math.ceil((heights[0] - below.min()) / step))
    after = max(0, math.ceil((above.max() - heights[-1]) / step))
    seen = heights[0] + step * np.arange(-before, len(heights) + after)
    rays = replace(rays, heights=tuple(np.array(rays.heights) - (seen[0] + seen[-1]) / 2))
    photons = None if projections.photons is None else projections.photons[None, start:stop, None]
    method: dict[str, object] = {"rebinning": "none", "slices_measured": [before, before + len(heights)]}
    return rays, read_views(projections, start, stop)[None], photons, seen, method


def _affine(position: str, size: int, pixel: float, first: float, step: float) -> Tensor:
    """Voxel to RAS, of an image seen from the table: the patient's own directions, z as in the files."""
    position = position.upper() or "HFS"
    if position[:2] not in ("HF", "FF") or position[2:] not in UP:
        log.warning("patient position %r is unknown and taken as HFS: left and right may be exchanged", position)
        position = "HFS"
    up = np.array(UP[position[2:]])
    right = np.cross([0, 0, 1 if position[:2] == "HF" else -1], up)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = pixel * right, -pixel * up, (0, 0, step)
    affine[:3, 3] = (0, 0, first) - (affine[:3, 0] + affine[:3, 1]) * (size - 1) / 2
    return torch.from_numpy(affine)
