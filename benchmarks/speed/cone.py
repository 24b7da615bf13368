"""Our cone-beam projector and FDK on the CPU: CPU seconds (all threads), and nanoseconds a sample beside our 2D one.

    python benchmarks/speed/cone.py                # 128^3 and 256^3, some minutes

ASTRA projects cones on a GPU only, so there is nothing of its own to compare with here. The comparison is our fan beam
on 64 slices, per sample: one ray and one step, that is two neighbours for a fan and four for a cone. FDK: one voxel
and one view.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import torch
from projectors import cpu_seconds

from medrecon.geometry import ConeGeometry, VolumeGrid
from medrecon.operators.ct.filtered.fdk import fdk
from medrecon.operators.ct.joseph import cone, planar

CASES = {"128": (128, 180, (128, 192)), "256": (256, 360, (256, 384))}
SLICES = 64
"""Batch of the fan beam."""


def scan(size: int, views: int, detector: tuple[int, int]) -> ConeGeometry:
    """A full circle whose detector covers a cube of `size` mm."""
    rows, columns = detector
    angles = tuple(2 * math.pi * k / views for k in range(views))
    return ConeGeometry(angles, detector, (2.4 * size / rows, 2.6 * size / columns), 2.0 * size, 1.6 * size)


def rows(name: str, size: int, views: int, detector: tuple[int, int], repeats: int) -> None:
    """Print the lines of one size."""
    geometry, grid = scan(size, views, detector), VolumeGrid((size,) * 3, (1.0, 1.0, 1.0))
    rays, g = cone.trace(geometry, grid), np.random.default_rng(0)
    x = g.random((1, *grid.shape), dtype=np.float32)
    y = cone.forward(x, rays)
    steps = int((rays.plane.last - rays.plane.first).sum())
    slices, batch = planar.forward(x[0, :SLICES], rays.plane), min(SLICES, size)
    case = f"{name}³, {views} views, {detector[0]} x {detector[1]}"
    projections = torch.from_numpy(y)
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "cone, forward": (lambda: cone.forward(x, rays), steps * detector[0]),
        "cone, adjoint": (lambda: cone.adjoint(y, rays, grid.shape), steps * detector[0]),
        f"fan x {batch}, forward": (lambda: planar.forward(x[0, :SLICES], rays.plane), steps * batch),
        f"fan x {batch}, adjoint": (lambda: planar.adjoint(slices, rays.plane, grid.shape[1:]), steps * batch),
        "FDK": (lambda: fdk(projections, geometry, grid), size**3 * views),
    }
    for label, (call, samples) in calls.items():
        seconds = cpu_seconds(call, repeats)
        print(f"| {case} | {label} | {seconds:.2f} | {seconds / samples * 1e9:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    small = scan(16, 4, (8, 8))  # compile first
    grid, y = VolumeGrid((8, 16, 16), (1.0, 1.0, 1.0)), np.zeros((1, *small.shape), dtype=np.float32)
    cone.forward(cone.adjoint(y, cone.trace(small, grid), grid.shape), cone.trace(small, grid))
    fdk(torch.from_numpy(y), small, grid)
    flat = planar.trace(small.plane(), grid.plane())
    planar.forward(planar.adjoint(y[:, :, 0], flat, grid.shape[1:]), flat)
    print("| case | what | CPU s | ns a sample |\n|---|---|---|---|")
    for name in options.sizes:
        rows(name, *CASES[name], options.repeats)


if __name__ == "__main__":
    main()
