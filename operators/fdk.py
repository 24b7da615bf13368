"""FDK: filtered backprojection of a circular cone-beam scan (Feldkamp, Davis, Kress 1984, JOSA A 1, 612-619)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators import joseph
from medrecon.operators.cone_geometry import ConeGeometry, VolumeGrid, check_source_outside
from medrecon.operators.fbp import Window, _window, angular_weights, parker_weights

CHUNK = 2**22
"""Numbers that are filtered at a time: bounds the memory of the transform."""
BLOCK = 4
"""Image rows that a thread owns at a time."""


def fdk(projections: Tensor, geometry: ConeGeometry, grid: VolumeGrid, window: Window = "ramp") -> Tensor:
    """Line integrals (..., V, R, D) -> attenuation (..., Z, H, W) [1/mm], on the projections' device.

    Full scans, short scans (Parker weights of the fan in the middle, for every row) and any spacing of views; flat
    and arc detectors. Exact in the plane of the source only; farther away it underestimates, the more the larger the
    cone angle (Feldkamp's artefact: one circle does not measure all that a volume needs).

    A voxel that is above or below the beam in some views takes the nearest detector row there, which is right for
    objects that change little along z; a voxel that no view sees is 0. Beyond the detector's ends the object counts
    as absent. Computes in float32, on the CPU, and without a gradient: use the operator's adjoint for that. Memory
    beside input and output: one filtered copy of the projections of one item.

    Args:
        window: apodisation of the ramp up to the detector's Nyquist frequency.

    Raises:
        ValueError: projections of another shape than the geometry says, an unknown window, a helical scan, a flying
            focal spot, or a source inside the volume.
    """
    _check(projections, geometry, grid)
    items = projections.detach().to("cpu", torch.float32).reshape(-1, *geometry.shape)
    out = np.empty((len(items), *grid.shape), dtype=np.float32)
    for item, volume in zip(items, out, strict=True):
        _backproject(_filtered(item, geometry, window), volume, geometry, grid)
    lead = projections.shape[:-3]
    return torch.from_numpy(out).reshape(*lead, *grid.shape).to(projections.device, projections.dtype)


def _check(projections: Tensor, geometry: ConeGeometry, grid: VolumeGrid) -> None:
    if tuple(projections.shape[-3:]) != geometry.shape:
        raise ValueError(f"fdk: the geometry has (views, rows, columns) = {geometry.shape}, "
                         f"the projections {tuple(projections.shape)}")  # fmt: skip
    if np.ptp(geometry.source_heights()) > 1e-3 * geometry.det_spacing[0]:
        raise ValueError("fdk: the scan is helical, and FDK is for circles; reconstruct it with an iterative solver "
                         "on the cone-beam operator, or rebin it to fan-beam slices")  # fmt: skip
    if geometry.focal_shifts:
        raise ValueError("fdk: the scan has a flying focal spot, which FDK does not know; reconstruct it with an "
                         "iterative solver on the cone-beam operator, or rebin it to fan-beam slices")  # fmt: skip
    check_source_outside(geometry, grid)


def ray_weights(geometry: ConeGeometry) -> NDArray[np.float64]:
    """(V, D) weight of each column before the filter [rad]: share of the arc, redundancy, and the fan's obliquity."""
    angles, gamma = np.asarray(geometry.angles), geometry.plane().fan_angles()
    share, start, arc = angular_weights(angles, 2 * math.pi)
    redundancy = np.full((len(angles), len(gamma)), 0.5)
    if arc < 2 * math.pi:
        redundancy = parker_weights(np.mod(angles - start, 2 * math.pi), gamma, arc)
    return share[:, None] * redundancy * np.cos(gamma)


def cone_cosines(geometry: ConeGeometry) -> NDArray[np.float64]:
    """(R, D) cosine of the angle of each ray to the plane of the source."""
    climb = (geometry.row_heights()[0] - geometry.source_heights()[0])[:, None]
    plane = geometry.plane()
    run = plane.source_detector / (np.cos(plane.fan_angles()) if plane.detector == "flat" else np.ones(plane.det_count))
    return np.asarray(run / np.hypot(run, climb))


def _filtered(item: Tensor, geometry: ConeGeometry, window: Window) -> NDArray[np.float32]:
    """Weighted and filtered projections (V, D + 2, R), with a column of zeros at both ends."""
    views, rows, columns = geometry.shape
    plane = geometry.plane()
    arc_step = plane.det_spacing / plane.source_detector if plane.detector == "arc" else 0.0
    response = torch.from_numpy(ramp(columns, plane.iso_spacing, window, arc_step)).float()
    size = 2 * (len(response) - 1)
    weights = torch.from_numpy(ray_weights(geometry)).float()[:, None]
    cosines = torch.from_numpy(cone_cosines(geometry)).float()
    out = torch.zeros(views, columns + 2, rows)
    chunk = max(1, CHUNK // (rows * size))
    for first in range(0, views, chunk):
        part = slice(first, first + chunk)
        spectrum = torch.fft.rfft(item[part] * weights[part] * cosines, size) * response
        out[part, 1:-1] = torch.fft.irfft(spectrum, size)[..., :columns].mT
    return out.numpy()


def ramp(count: int, spacing: float, window: Window, angle: float = 0.0) -> NDArray[np.float64]:
    """Frequency response of the band-limited ramp [1/mm] for `count` elements, padded so that nothing wraps.

    Args:
        angle: fan angle between elements at equal angles [rad], for the ramp times (angle / sin angle)^2 of an arc
            detector (Kak & Slaney, 3.4.1); 0: elements at equal distances.
    """
    size = 1 << max(2 * count - 1, 2).bit_length()
    taps = np.arange(size)
    taps = np.where(taps <= size // 2, taps, taps - size)  # integers: fftfreq(n, 1/n) is not exactly integer
    odd = taps % 2 == 1
    kernel = np.zeros(size)
    kernel[0] = 0.25
    kernel[odd] = -1 / (math.pi * taps[odd]) ** 2
    turn = np.where(abs(taps) < count, taps * angle, 0.0)  # taps beyond the detector meet zeros
    kernel /= np.sinc(turn / math.pi) ** 2
    return np.asarray(np.fft.rfft(kernel).real / spacing * _window(np.arange(size // 2 + 1) / size, window))


def _backproject(filtered: NDArray[np.float32], volume: NDArray[np.float32], geometry: ConeGeometry,
                 grid: VolumeGrid) -> None:  # fmt: skip
    from medrecon.operators import fdk_kernels

    plane, (x, y) = geometry.plane(), grid.plane().coordinates()
    scale = plane.source_detector / geometry.source_origin  # detector columns are counted at the rotation axis
    source, pitch = geometry.source_heights()[0], geometry.det_spacing[0]
    run = fdk_kernels.backproject_serial if joseph.forked() else fdk_kernels.backproject
    run(filtered, volume, np.cos(geometry.angles), np.sin(geometry.angles), x, y, geometry.detector == "arc",
        geometry.source_origin, plane.positions()[0] / scale, plane.iso_spacing, plane.source_detector / pitch,
        grid.heights()[0] - source, grid.spacing[0], (geometry.row_heights()[0, 0] - source) / pitch, BLOCK,
    )  # fmt: skip
