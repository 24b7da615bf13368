"""Single-slice rebinning: a helical cone-beam scan becomes one fan-beam scan for each slice.

Noo, Defrise, Clackdoyle, Phys. Med. Biol. 44:561 (1999): a ray that crosses the slice at the foot of the perpendicular
from the axis stands for the ray in the slice beneath it, shortened to its length there (their eq. 1, 2). Here a ray of
the slice may have been measured along either direction, from any position of a flying focal spot; what was measured
within half a table feed counts, the nearer in z the more, as in 180-degree linear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.geometry import ConeGeometry, FanGeometry

MAX_PERIOD = 8
SAME = 0.05
"""Focal spots nearer to each other are one position [mm]."""


def rebin(data: Tensor, geometry: ConeGeometry, heights: Sequence[float], fan: FanGeometry | None = None) -> Tensor:
    """(V, R, D) line integrals of a helical scan -> (Z, N, D) of `fan`, by default `fan_geometry(geometry)`.

    Raises:
        ValueError: data of another shape, not a helix, or a slice some of whose rays were not measured (with the
            range of z that can be reached).
    """
    return rebin_counted(data, torch.ones(1, 1), geometry, heights, fan)[0]


def rebin_counted(
    data: Tensor, photons: Tensor, geometry: ConeGeometry, heights: Sequence[float], fan: FanGeometry | None = None
) -> tuple[Tensor, Tensor]:
    """As `rebin`, and the photons that would give a ray of each fan the noise it has, (Z, N, D).

    Neighbours of a rebinned ray share samples, so their noise is alike; that is not told.

    Args:
        photons: a ray without an object, (V, D), (V, 1) or (1, 1).
    """
    if tuple(data.shape) != geometry.shape or photons.shape[0] not in (1, len(data)):
        raise ValueError(
            f"rebin: the geometry has (views, rows, columns) = {geometry.shape}, the data "
            f"{tuple(data.shape)}, the photons {tuple(photons.shape)}"
        )
    fan = fan_geometry(geometry) if fan is None else fan
    helix = _Helix(geometry, fan, np.arange(fan.det_count))
    measured, counted = (t.detach().cpu().float().contiguous().numpy() for t in (data, photons))
    out, worth = torch.empty(len(heights), *fan.shape), torch.empty(len(heights), *fan.shape)

    def one(index: int) -> None:
        helix.slice(measured, counted, float(heights[index]), out[index].numpy(), worth[index].numpy())
        if not bool((worth[index] > 0).all()):
            low, high = reach(geometry, fan)
            raise ValueError(
                f"rebin: no slice at z = {heights[index]:g} mm: the scan reaches slices from {low:.2f} to {high:.2f} mm"
            )

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for _ in pool.map(one, range(len(heights))):
            pass
    return out, worth


def mismatch(data: Tensor, geometry: ConeGeometry, z: float) -> float:
    """How much the rays of a slice differ when measured along opposite directions, relative to their size.

    What changes with z within half a table feed makes a difference too, so the number says little by itself; but a
    wrong geometry makes it larger.
    """
    fan = fan_geometry(geometry)
    helix, one = _Helix(geometry, fan, np.arange(fan.det_count)), np.ones((1, 1), np.float32)
    measured, places = data.detach().cpu().float().contiguous().numpy(), helix.places
    found = []
    for opposite in (False, True):
        out, worth = (np.empty(fan.shape, np.float32) for _ in range(2))
        helix.places = np.where((np.arange(len(places)) % 2 == opposite)[:, None], places, -1.0)
        helix.slice(measured, one, z, out, worth)
        found.append((out, worth > 0))
    (a, seen_a), (b, seen_b) = found
    both = seen_a & seen_b
    return float(np.linalg.norm((a - b)[both]) / max(np.linalg.norm(a[both]), np.finfo(np.float32).tiny))


def fan_geometry(geometry: ConeGeometry) -> FanGeometry:
    """The fan of every slice: the scan's own plane over one turn, with as many views as each focal spot has."""
    step = abs(_mean_step(np.array(geometry.angles)[:: _period(geometry)]))
    count = max(1, round(2 * math.pi / step))
    angles = geometry.angles[0] + 2 * math.pi / count * np.arange(count)
    return FanGeometry(
        tuple(angles),
        geometry.det_shape[1],
        geometry.det_spacing[1],
        geometry.source_origin,
        geometry.origin_detector,
        geometry.det_offset[1],
        geometry.detector,
    )


def reach(geometry: ConeGeometry, fan: FanGeometry | None = None) -> tuple[float, float]:
    """The lowest and highest z of which every ray was measured [mm], to 0.01 mm.

    Raises:
        ValueError: not a helix, or none: the table moves too fast for the detector, or too few views.
    """
    fan = fan_geometry(geometry) if fan is None else fan
    helix = _Helix(geometry, fan, np.unique(np.linspace(0, fan.det_count - 1, 9).round().astype(int)))
    nothing, one = np.zeros((1, *geometry.det_shape), np.float32), np.ones((1, 1), np.float32)
    out, worth = (np.empty((len(fan.angles), helix.width), np.float32) for _ in range(2))

    def seen(z: float) -> bool:
        helix.slice(nothing, one, z, out, worth)
        return bool((worth > 0).all())

    low, high = min(geometry.heights), max(geometry.heights)
    places = np.linspace(low, high, 2 + math.ceil(16 * (high - low) / helix.pitch)).tolist()
    lowest = next((z for z in places if seen(z)), None)
    if lowest is None:
        wide = geometry.det_shape[0] * geometry.det_spacing[0] / fan.magnification
        raise ValueError(
            f"rebin: no slice can be reached: the table moves {helix.pitch:.2f} mm a turn, the detector "
            f"covers {wide:.2f} mm at the axis (up to about 1.4 times that will do), and the scan has "
            f"{helix.turns:.2f} turns (it needs more than one)"
        )
    step = places[1] - places[0]
    highest = next(z for z in reversed(places) if seen(z))
    return _edge(seen, lowest, lowest - step), _edge(seen, highest, highest + step)


def views_near(geometry: ConeGeometry, low: float, high: float) -> tuple[int, int]:
    """(start, stop) of the views that slices between two heights are made from."""
    z = np.array(geometry.heights)
    margin = abs(_pitch(geometry)) / 2 + (np.ptp([s[2] for s in geometry.focal_shifts]) if geometry.focal_shifts else 0)
    near = np.flatnonzero((z >= low - margin) & (z <= high + margin))
    period = _period(geometry)
    return max(0, int(near[0]) - 2 * period), min(len(z), int(near[-1]) + 1 + 2 * period)


def _edge(seen: Callable[[float], bool], inside: float, outside: float) -> float:
    while abs(outside - inside) > 0.005:
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if seen(middle) else (inside, middle)
    return inside


class _Helix:
    """The tables of `helical_kernels.fan_rays`, for some columns of a fan."""

    def __init__(self, geometry: ConeGeometry, fan: FanGeometry, columns: NDArray[np.int64]) -> None:
        self.geometry, self.width = geometry, len(columns)
        self.pitch, self.turns = abs(_pitch(geometry)), np.ptp(geometry.angles) / (2 * math.pi)
        self.betas = np.array(fan.angles)
        period = _period(geometry)
        if len(geometry.angles) < 2 * period:
            raise ValueError(f"rebin: {len(geometry.angles)} views are no helical scan")
        self._spots([np.arange(s, len(geometry.angles), period) for s in range(period)])
        shifts = np.array(geometry.focal_shifts) if geometry.focal_shifts else np.zeros((len(geometry.angles), 3))
        gamma = fan.fan_angles()[columns]
        ways = [_way(geometry, gamma, shifts[s::period].mean(0), o) for s in range(period) for o in (False, True)]
        self.which = np.repeat(np.arange(period), 2)
        self.lags, places, self.feet, self.ends = (np.ascontiguousarray(np.stack(table)) for table in zip(*ways))
        self.places = _on_detector(places, geometry.det_shape[1])

    def _spots(self, groups: list[NDArray[np.int64]]) -> None:
        """Views of each focal spot in the order of their angles, padded to the longest."""
        angles, heights = np.array(self.geometry.angles), np.array(self.geometry.heights)
        sources = self.geometry.source_heights()
        self.counts = np.array([len(group) for group in groups])
        self.views = np.zeros((len(groups), self.counts.max()), np.int64)
        self.angles, self.sources, self.centres = (np.zeros(self.views.shape) for _ in range(3))
        self.slopes = []
        for s, group in enumerate(groups):
            order = group if angles[group[-1]] > angles[group[0]] else group[::-1]
            if not (np.diff(angles[order]) > 0).all():
                raise ValueError("rebin: the angles of the views must rise or fall all along the scan")
            self.views[s, : len(order)] = order
            for table, values in ((self.angles, angles), (self.sources, sources), (self.centres, heights)):
                table[s, : len(order)] = values[order]
            self.slopes.append(np.polyfit(sources[order], angles[order], 1))

    def slice(
        self,
        data: NDArray[np.float32],
        photons: NDArray[np.float32],
        z: float,
        out: NDArray[np.float32],
        worth: NDArray[np.float32],
    ) -> None:
        """Fill `out` (N, columns) with the fan at height z, `worth` with photons, 0 where a ray was not measured."""
        from medrecon.acquisition.helical_kernels import fan_rays

        turn_of_z = np.array([np.polyval(slope, z) for slope in self.slopes])
        views = self.views if len(data) == len(self.geometry.angles) else np.zeros_like(self.views)
        fan_rays(
            data,
            photons,
            self.betas,
            z,
            turn_of_z,
            self.pitch / 2,
            self.geometry.det_spacing[0],
            self.geometry.det_offset[0],
            views,
            self.counts,
            self.angles,
            self.sources,
            self.centres,
            self.which,
            self.lags,
            self.places,
            self.feet,
            self.ends,
            out,
            worth,
        )


def _way(
    geometry: ConeGeometry, gamma: NDArray[np.float64], shift: NDArray[np.float64], opposite: bool
) -> tuple[NDArray[np.float64], ...]:
    """How the fan rays at gamma, seen from beta, were measured by a shifted focal spot: angle of the view less beta,
    column, and distances in the plane from the spot to the foot of the perpendicular and to the detector.

    The ray from the source at angle t, at gamma, has the direction t - gamma and passes the axis at R sin(gamma).
    """
    radius, distance = geometry.source_origin, geometry.source_origin + geometry.origin_detector
    turn, rho = shift[0], radius + shift[1]
    own = np.arcsin(radius * np.sin(gamma) / rho) * (-1 if opposite else 1)
    lag = own - gamma - turn + (math.pi if opposite else 0)
    # In the frame of the view, across and ahead from the detector's focal centre:
    direction = np.stack([np.sin(own - turn), np.cos(own - turn)])
    spot = np.array([rho * math.sin(turn), radius - rho * math.cos(turn)])[:, None]
    if geometry.detector == "arc":
        along = (spot * direction).sum(0)
        end = np.sqrt(along**2 - (spot**2).sum(0) + distance**2) - along
        u = distance * np.arctan2(*(spot + end * direction))
    else:
        end = (distance - spot[1]) / direction[1]
        u = (spot + end * direction)[0]
    column = (u - geometry.det_offset[1]) / geometry.det_spacing[1] + (geometry.det_shape[1] - 1) / 2
    return lag, column, rho * np.cos(own), end


def _on_detector(columns: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(W, D) columns within 0..count - 1, -1 for a ray that passes the detector.

    A shifted spot may miss the outermost rays that the fan has; where all do, the outermost column stands for them.
    """
    passes = (columns < -0.5) | (columns > count - 0.5)
    passes[:, passes.all(0)] = False
    return np.where(passes, -1.0, columns.clip(0, count - 1))


def _pitch(geometry: ConeGeometry) -> float:
    """Table feed of one turn [mm]."""
    if not geometry.heights or np.ptp(geometry.heights) == 0:
        raise ValueError("rebin: not a helical scan, the table does not move")
    return 2 * math.pi * float(np.polyfit(geometry.angles, geometry.heights, 1)[0])


def _mean_step(angles: NDArray[np.float64]) -> float:
    return float(angles[-1] - angles[0]) / max(1, len(angles) - 1)


def _period(geometry: ConeGeometry) -> int:
    """Number of places the focal spot flies between."""
    if not geometry.focal_shifts:
        return 1
    places = np.array(geometry.focal_shifts) * [geometry.source_origin, 1, 1]
    for period in range(1, MAX_PERIOD + 1):
        if len(places) > period and np.abs(places[period:] - places[:-period]).max() < SAME:
            return period
    raise ValueError(f"rebin: the flying focal spot does not come back to its places within {MAX_PERIOD} views")
