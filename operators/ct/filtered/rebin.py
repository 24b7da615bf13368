"""Rebinning: the rays of a fan scan sorted into parallel views.

Seen from its source, a ray keeps its place: all rays of one detector element and one focal position lie at the same
distance from the rotation centre, and turn with the source. So rebinning is an interpolation over the source angle,
element by element, and then one over the distance, where elements, focal positions and reversed rays interleave
(Kak & Slaney, Principles of Computerized Tomographic Imaging, section 3.4.3; cubic instead of linear).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.geometry import FanGeometry, ParallelGeometry
from medrecon.operators.ct.filtered.weights import circle_gaps, unmeasured

Floats = NDArray[np.float64]
CHUNK = 8
"""Slices at a time, which bounds the memory."""


def fan_to_parallel(
    sinogram: Tensor, geometry: FanGeometry, views: int | None = None, det_spacing: float | None = None
) -> tuple[Tensor, ParallelGeometry]:
    """Rebin line integrals (..., V, D) of a fan to parallel views (..., views, D') over half a turn; differentiable.

    Flat and arc detectors, any source angles, any arc, detector offsets, a flying focal spot that returns to a few
    positions. Lines measured more than once are averaged; lines nobody measured are zero.

    Args:
        views: parallel views over 180 degrees; default as many as the scan has in 360.
        det_spacing: of the parallel rays [mm]; default as fine as the measured rays lie, which a flying focal spot
            or a quarter detector offset makes finer than the detector.

    Raises:
        ValueError: a sinogram of another shape than the geometry says, or a focal position with fewer than 4 views.
    """
    if tuple(sinogram.shape[-2:]) != geometry.shape:
        raise ValueError(
            f"fan_to_parallel: the geometry has (views, detectors) = {geometry.shape}, "
            f"the sinogram {tuple(sinogram.shape)}"
        )
    groups = _focal_groups(geometry)
    lines = [_lines(geometry, group) for group in groups]
    place = np.concatenate([side * s for _, s in lines for side in (1, -1)])
    order = np.argsort(place, kind="stable")
    cells = _pool(place[order], 0.3 * geometry.iso_spacing / len(groups))
    pitch = det_spacing or _density(np.bincount(cells, place[order]) / np.bincount(cells))
    count = math.floor(2 * np.abs(place).max() / pitch) + 1
    angles = np.arange(views or _view_count(geometry)) * math.pi / (views or _view_count(geometry))
    parallel = ParallelGeometry(tuple(angles), count, pitch)

    def rebin(rays: Tensor) -> Tensor:
        found = [
            _over_angle(rays[:, group], np.asarray(geometry.angles)[group], angles[:, None] + half - turn)
            for group, (turn, _) in zip(groups, lines, strict=True)
            for half in (0, math.pi)
        ]
        values = torch.cat([value for value, _ in found], dim=2)[..., order]
        measured = np.concatenate([known for _, known in found], axis=1)[:, order]
        hole = 3 * max(geometry.iso_spacing, pitch)
        return _over_distance(values, measured, place[order], cells, parallel.positions(), hole)

    work = sinogram.dtype if sinogram.dtype in (torch.float32, torch.float64) else torch.float32
    rays = sinogram.reshape(-1, *geometry.shape).to(work)
    out = torch.cat([rebin(part) for part in rays.split(CHUNK)]) if len(rays) else rays.new_zeros(0, *parallel.shape)
    return out.reshape(*sinogram.shape[:-2], *parallel.shape).to(sinogram.dtype), parallel


def _focal_groups(geometry: FanGeometry) -> list[NDArray[np.int64]]:
    """Views of each focal position; positions closer than a hundredth of a ray are one."""
    if not geometry.focal_shifts:
        return [np.arange(len(geometry.angles))]
    shifts = np.array(geometry.focal_shifts) * [geometry.source_origin, 1.0]
    order = np.argsort(shifts, axis=0)
    new = np.diff(np.take_along_axis(shifts, order, 0), axis=0, prepend=-np.inf) > 0.01 * geometry.iso_spacing
    labels = np.empty_like(order)
    np.put_along_axis(labels, order, np.cumsum(new, axis=0), 0)
    which = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    groups = [np.flatnonzero(which == k) for k in range(which.max() + 1)]
    if min(map(len, groups)) < 4:
        raise ValueError(
            f"fan_to_parallel: focal_shifts has {len(groups)} different positions in {len(which)} views; "
            "the focal spot must return to each of a few positions at least 4 times"
        )
    return groups


def _lines(geometry: FanGeometry, group: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(D,) angle of each ray's parallel view less the source's [rad], and its distance from the centre [mm]."""
    shift = (tuple(np.mean([geometry.focal_shifts[v] for v in group], axis=0)),) if geometry.focal_shifts else ()
    point, along = (a[0] for a in replace(geometry, angles=(0.0,), focal_shifts=shift).rays())
    turn = np.arctan2(along[:, 1], along[:, 0]) - math.pi / 2
    return turn, point[:, 0] * np.cos(turn) + point[:, 1] * np.sin(turn)


def _view_count(geometry: FanGeometry) -> int:
    """Views of a full turn at the density of the scan."""
    gaps = circle_gaps(np.asarray(geometry.angles), 2 * math.pi)[1]
    step, missing = unmeasured(gaps, 2 * math.pi)
    return max(4, round(2 * math.pi / max(step, float(gaps[~missing].mean()) if not missing.all() else step)))


def _density(nodes: Floats) -> float:
    """Mean distance of nodes in their middle half."""
    low, high = len(nodes) // 4, len(nodes) - 1 - len(nodes) // 4
    return float((nodes[high] - nodes[low]) / (high - low)) if high > low else float(np.ptp(nodes)) or 1.0


def _pool(nodes: Floats, width: float) -> NDArray[np.int64]:
    """Cell of each of ascending nodes, cells being at most `width` wide: no interpolation between near doubles."""
    cells, first = np.zeros(len(nodes), dtype=np.int64), 0
    while first < len(nodes):
        cells[first:] += first > 0
        first = int(np.searchsorted(nodes, nodes[first] + width, side="right"))
    return cells


def _lagrange(nodes: Floats, x: Floats) -> Floats:
    """Weights (..., 4) of the cubic through four nodes (..., 4) at x (...)."""
    weights = np.ones_like(nodes)
    for j in range(4):
        for m in range(4):
            if m != j:
                weights[..., j] *= (x - nodes[..., m]) / (nodes[..., j] - nodes[..., m])
    return weights


def _mean(values: Tensor, cells: NDArray[np.int64], dim: int) -> Tensor:
    """Mean of the entries of each cell along an axis; the cells are 0, 1, 2, ... ."""
    counts = np.bincount(cells)
    shape = [*values.shape]
    shape[dim] = len(counts)
    share = torch.from_numpy((1 / counts)[cells]).to(values)
    values = values * share.reshape([-1 if k == dim else 1 for k in range(values.ndim)])
    return values.new_zeros(shape).index_add(dim, torch.from_numpy(cells).to(values.device), values)


def _over_angle(rays: Tensor, angles: Floats, target: Floats) -> tuple[Tensor, NDArray[np.bool_]]:
    """Rays (B, V, D) at source angles target (T, D) -> (B, T, D), and whether they were measured, (T, D)."""
    order, gaps = circle_gaps(angles, 2 * math.pi)
    cut = angles[order[-1]] + gaps[-1] / 2  # in the widest gap: no pair of near doubles is cut
    turned = np.mod(angles[order] - cut, 2 * math.pi)
    cells = _pool(turned, 0.1 * unmeasured(gaps, 2 * math.pi)[0])
    node = np.bincount(cells, turned) / np.bincount(cells)
    if len(node) < 4:
        raise ValueError(f"fan_to_parallel: {len(node)} different source angles for a focal position, needs 4")
    rays = _mean(rays[:, order], cells, 1)
    step, missing = unmeasured(np.diff(node, append=node[0] + 2 * math.pi), 2 * math.pi)

    def at(index: NDArray[np.int64]) -> Floats:
        return np.asarray(node[index % len(node)] + 2 * math.pi * (index // len(node)))

    x = np.mod(target - cut, 2 * math.pi)
    left = np.searchsorted(node, x, side="right") - 1
    base = left - 1 + missing[left - 1] - missing[(left + 1) % len(node)]  # four views of one run
    before, after = x - at(left), at(left + 1) - x
    known = ~missing[left] | (np.minimum(before, after) <= step / 2)
    nearer = np.where(before < after, left, left + 1)  # behind the last view, its own rays for half a step
    x = np.where(missing[left], at(nearer), x)
    base = np.where(missing[left], np.where(before < after, left - 3, left + 1), base)
    taps = base[..., None] + np.arange(4)
    weights = torch.from_numpy(_lagrange(at(taps), x) * known[..., None]).to(rays)
    index = torch.from_numpy(taps % len(node)).to(rays.device)
    picked = (rays.gather(1, index[..., j].expand(len(rays), -1, -1)) * weights[..., j] for j in range(4))
    return torch.stack(list(picked)).sum(0), known


def _over_distance(
    values: Tensor, measured: NDArray[np.bool_], place: Floats, cells: NDArray[np.int64], target: Floats, hole: float
) -> Tensor:
    """Values (B, T, M) at ascending places (M,), where measured (T, M) -> (B, T, len(target)); zero in holes."""
    out = values.new_zeros(*values.shape[:2], len(target))
    masks, which = np.unique(measured, axis=0, return_inverse=True)
    for m, mask in enumerate(masks):
        columns, rows = np.flatnonzero(mask), np.flatnonzero(which.ravel() == m)
        if len(columns) == 0:
            continue
        cell = np.unique(cells[columns], return_inverse=True)[1]
        node = np.bincount(cell, place[columns]) / np.bincount(cell)
        if len(node) < 4:
            continue
        left = np.clip(np.searchsorted(node, target, side="right") - 1, 0, len(node) - 2)
        inside = (target >= node[0] - hole / 6) & (target <= node[-1] + hole / 6)
        inside &= node[left + 1] - node[left] < hole
        taps = np.clip(left - 1, 0, len(node) - 4)[:, None] + np.arange(4)
        weights = torch.from_numpy(_lagrange(node[taps], np.clip(target, node[0], node[-1])) * inside[:, None])
        pooled = _mean(values[:, rows][..., columns], cell, 2)
        weights = weights.to(pooled)
        out[:, rows] = sum(pooled[..., taps[:, j]] * weights[:, j] for j in range(4))
    return out
