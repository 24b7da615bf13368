"""A reconstructed volume against its reference, compared on the reference's grid."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from medrecon.core.volume import Volume
from medrecon.quality.metrics import CT_WINDOWS, SSIM_WINDOW, Window, ssim

Grid = Literal["reference", "recon"]
"""whose voxels are compared"""

SAME_PLACE = 1e-3
"""of a voxel: grids closer than this are the same"""

FINEST = 4096
"""voxels of a reconstruction that are averaged to one of the reference, at most"""

CHUNK = 16
"""slices scored at once, which bounds the memory"""


@dataclass(frozen=True, eq=False)
class Matched:
    """A volume on another's grid, (Z, Y, X), and the voxels it covers."""

    data: Tensor
    mask: Tensor
    resampled: bool


def evaluate(recon: Volume, reference: Volume, *, grid: Grid = "reference") -> dict[str, Any]:
    """PSNR, SSIM, NMSE, RMSE and bias of `recon`, ready for JSON. The values are never rescaled.

    If the grids differ, one volume is brought onto the other's by trilinear interpolation, averaged over the voxel of
    the grid where it is finer. Voxels that it does not cover do not count; slices it does not cover at all are left out
    and listed.

    HU: each declared window (`metrics.CT_WINDOWS`) with both volumes clipped to it and its width as data range;
    NMSE is relative to the window's lower end. The figures at the top are those of the full window.
    MRI (magnitudes), and CT in 1/mm: the data range is the maximum of the reference volume on the grid of the
    comparison. In both, PSNR, NMSE and RMSE of the volume come from the error over all its voxels, SSIM is the mean
    over its slices; every slice is listed too. An infinite PSNR (no error at all) is given as None.

    Args:
        grid: "reference": the reconstruction is brought to the reference's voxels, so that detail it lacks is an error.
            "recon": the reference is brought to those of the reconstruction, which is asked for no more than its voxels
            can hold; figures of reconstructions on different grids are then not of the same voxels.

    Raises:
        ValueError: modality or units differ, the volumes do not overlap, or values are not finite.
    """
    pair = paired(recon, reference, grid)
    kept = pair.mask.flatten(1).any(1)
    index = kept.nonzero()[:, 0].tolist()
    x, truth, mask = pair.recon[kept], pair.reference[kept], pair.mask[kept]
    report: dict[str, Any] = {
        "modality": reference.modality,
        "units": reference.units,
        "ssim_window": f"uniform {SSIM_WINDOW}x{SSIM_WINDOW}",
        "grid": {
            "of": grid,
            "shape": list(pair.mask.shape),
            "resampled": pair.resampled,
            "slices_compared": len(index),
            "slices_left_out": (~kept).nonzero()[:, 0].tolist(),
            "covered": round(float(mask.double().mean()), 6),
        },
    }
    if reference.units == "HU":
        windows = {name: _scores(w.clip(x), w.clip(truth), mask, w) for name, w in CT_WINDOWS.items()}
        slices = [
            {"index": k, **{name: scores["slices"][i] for name, scores in windows.items()}} for i, k in enumerate(index)
        ]
        for scores in windows.values():
            del scores["slices"]
        return {**report, **windows["full"], "windows": windows, "slices": slices}
    most = float(pair.reference.max() if grid == "reference" else truth[mask].max())
    scores = _scores(x, truth, mask, Window(0.0, most))
    rows = scores.pop("slices")
    return {**report, **scores, "slices": [{"index": k, **row} for k, row in zip(index, rows, strict=True)]}


@dataclass(frozen=True, eq=False)
class Pair:
    """Magnitudes of a reconstruction and its reference on one grid, (Z, Y, X), and the voxels that both cover."""

    recon: Tensor
    reference: Tensor
    mask: Tensor
    resampled: bool


def paired(recon: Volume, reference: Volume, grid: Grid = "reference") -> Pair:
    """Bring two volumes to one grid, see `evaluate`.

    Raises:
        ValueError: as `evaluate`, or an unknown grid.
    """
    if grid not in get_args(Grid):
        raise ValueError(f"grid: expected 'reference' or 'recon', got {grid!r}")
    _check_pair(recon, reference)
    if grid == "reference":
        moved = resample_to(recon, reference)
        return Pair(moved.data, _real(reference.data), moved.mask, moved.resampled)
    moved = resample_to(reference, recon, names=("reference", "reconstruction"))
    return Pair(_real(recon.data), moved.data, moved.mask, moved.resampled)


def resample_to(volume: Volume, grid: Volume, names: tuple[str, str] = ("reconstruction", "reference")) -> Matched:
    """`volume` (its magnitude) at the voxels of `grid`; a volume covers half a voxel around its outermost centres.

    Args:
        names: what the two are, for errors.

    Raises:
        ValueError: the two do not overlap, or a voxel of the grid holds too many of the volume's.
    """
    from scipy.ndimage import map_coordinates

    data = _real(volume.data)
    if same_grid(volume, grid):
        return Matched(data, torch.ones(data.shape, dtype=torch.bool), False)
    to_volume = (torch.linalg.inv(volume.affine) @ grid.affine).numpy()
    # Sub-points of a reference voxel, so that a finer reconstruction is averaged and not sampled.
    fine = [max(1, round(g / v)) for g, v in zip(grid.spacing, _spacing_along(to_volume, grid), strict=True)]
    if math.prod(fine) > FINEST:
        raise ValueError(
            f"a voxel of the {names[1]}, {_mm(grid)}, holds {math.prod(fine)} of the {names[0]}, {_mm(volume)}; "
            "are the lengths of both mm? If they are, bring one to the grid of the other first"
        )
    points = [(np.arange(n) + 0.5) / n - 0.5 for n in fine]
    depth, height, width = grid.data.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    limit = np.array(data.shape[::-1])[:, None] - 0.5
    values = data.numpy()
    out = np.zeros(grid.data.shape, np.float32)
    inside = np.ones(grid.data.shape, bool)
    for k in range(depth):
        for dx, dy, dz in itertools.product(*points):
            centres = np.stack([x.ravel() + dx, y.ravel() + dy, np.full(x.size, k + dz)])
            voxel = to_volume[:3, :3] @ centres + to_volume[:3, 3:]
            inside[k] &= ((voxel >= -0.5 - 1e-6) & (voxel <= limit + 1e-6)).all(0).reshape(height, width)
            out[k] += map_coordinates(values, voxel[::-1], order=1, mode="nearest").reshape(height, width)
    if not inside.any():
        raise ValueError(
            f"evaluate: the volumes do not overlap: the {names[0]} spans {_extent(volume)} mm, "
            f"the {names[1]} {_extent(grid)} mm (RAS); is it another scan?"
        )
    return Matched(torch.from_numpy(out / math.prod(fine)), torch.from_numpy(inside), True)


def same_grid(a: Volume, b: Volume) -> bool:
    """Same shape, and every corner voxel within SAME_PLACE of the smallest voxel's size."""
    if a.data.shape != b.data.shape:
        return False
    return bool(((a.affine - b.affine) @ _corners(a)).abs().max() < SAME_PLACE * min(a.spacing))


def _spacing_along(to_volume: np.ndarray, grid: Volume) -> list[float]:
    """Voxel size (mm) of the volume along the axes of the grid."""
    steps = np.linalg.norm(to_volume[:3, :3], axis=0)
    return [g / s for g, s in zip(grid.spacing, steps, strict=True)]


def _corners(volume: Volume) -> Tensor:
    """Homogeneous voxel indices of the eight corner voxels, (4, 8)."""
    depth, height, width = volume.data.shape
    corners = [(x, y, z, 1) for x in (0, width - 1) for y in (0, height - 1) for z in (0, depth - 1)]
    return torch.tensor(corners, dtype=torch.float64).T


def _mm(volume: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in volume.spacing) + " mm"


def _extent(volume: Volume) -> str:
    place = (volume.affine @ _corners(volume))[:3]
    low, high = place.amin(1).tolist(), place.amax(1).tolist()
    return " x ".join(f"[{a:.0f}, {b:.0f}]" for a, b in zip(low, high, strict=True))


def _real(data: Tensor) -> Tensor:
    """Floating-point magnitudes: of whole numbers interpolation would round."""
    return data.abs() if data.is_complex() else data if data.dtype in (torch.float32, torch.float64) else data.float()


def _check_pair(recon: Volume, reference: Volume) -> None:
    for who, volume in (("reconstruction", recon), ("reference", reference)):
        if not isinstance(volume, Volume):
            raise TypeError(f"evaluate: {who}: expected a Volume, got {type(volume).__name__}")
        if not volume.data.numel():
            raise ValueError(f"evaluate: the {who} has no voxels")
        if volume.data.device.type == "meta":
            raise ValueError(f"evaluate: the {who} has no values, it is on the meta device")
    for name in ("modality", "units"):
        ours, theirs = getattr(recon, name), getattr(reference, name)
        if ours != theirs:
            raise ValueError(
                f"evaluate: the reconstruction has {name} {ours!r}, the reference {theirs!r}; convert one of them first"
            )
    for who, volume in (("reconstruction", recon), ("reference", reference)):
        if not bool(torch.isfinite(_real(volume.data)).all()):
            raise ValueError(f"evaluate: the {who} has NaN or infinite values")


def _scores(x: Tensor, truth: Tensor, mask: Tensor, window: Window) -> dict[str, Any]:
    """Scores of a volume (Z, Y, X) and of its slices; window.width is the data range, window.low the zero of NMSE."""
    if window.width <= 0:
        raise ValueError("evaluate: the reference has no positive value: there is nothing to compare with")
    parts = []
    for a, b, m in zip(x.split(CHUNK), truth.split(CHUNK), mask.split(CHUNK), strict=True):
        error = (a.double() - b.double()) * m
        energy = ((b.double() - window.low) * m).square()
        sums = [t.sum((-2, -1)) for t in (error.square(), energy, error, m.double())]
        parts.append(torch.stack([*sums, ssim(a, b, window.width, m)], 1))
    table = torch.cat(parts)
    known = table[:, 4].isfinite()  # a slice may be covered nowhere by a full SSIM window
    totals = [*table[:, :4].sum(0).tolist(), float(table[known, 4].mean())]
    declared = {"low": window.low, "high": window.high, "data_range": window.width}
    rows = [_row(row, window.width) for row in table.tolist()]
    return {**_row(totals, window.width), **declared, "slices": rows}


def _row(sums: list[float], span: float) -> dict[str, float | None]:
    """Figures from the sums: squared error, energy, error, voxels; and the SSIM."""
    square, energy, error, count, similarity = sums
    mse = square / count
    row = {
        "psnr_db": 10 * math.log10(span**2 / mse) if mse > 0 else math.inf,
        "ssim": similarity,
        "nmse": square / energy if energy > 0 else math.inf,
        "rmse": math.sqrt(mse),
        "bias": error / count,
    }
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
