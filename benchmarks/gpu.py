"""On a GPU: our exact pair ('torch') beside ASTRA's pair ('cuda'): seconds, difference, mismatch of the adjoint.

    python benchmarks/gpu.py                  # 512^2 x 64 slices x 720 views, parallel and fan; a 512^3 cone
    python benchmarks/gpu.py --scale 4        # everything four times smaller

Ends with a message where there is no GPU.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from medrecon.geometry import ConeGeometry, FanGeometry, ImageGrid, ParallelGeometry, VolumeGrid
from medrecon.numerics.linalg import dot
from medrecon.operators.ct.operator import CTOperator


def cases(scale: int) -> Iterator[tuple[str, CTOperator, CTOperator, int]]:
    """Name, our operator, ASTRA's, batch."""
    n, views = 512 // scale, 720 // scale
    angles = tuple(2 * math.pi * k / views for k in range(views))
    elements = math.ceil(1.42 * n)
    grid, volume = ImageGrid((n, n), (1.0, 1.0)), VolumeGrid((n, n, n), (1.0, 1.0, 1.0))
    for name, geometry in (
        ("parallel", ParallelGeometry(tuple(a / 2 for a in angles), elements, 1.0)),
        ("fan, flat", FanGeometry(angles, elements, 1.9, 2.0 * n, 1.6 * n)),
    ):
        yield f"{name}, {n}², {views} views", *pair(geometry, grid), 64
    for detector in ("flat", "arc"):
        cone = ConeGeometry(angles, (n, elements), (1.9, 1.9), 2.0 * n, 1.6 * n, detector=detector)
        yield f"cone, {detector}, {n}³, {views} views", *pair(cone, volume), 1


def pair(
    geometry: ParallelGeometry | FanGeometry | ConeGeometry, grid: ImageGrid | VolumeGrid
) -> tuple[CTOperator, CTOperator]:
    return CTOperator(geometry, grid, "torch"), CTOperator(geometry, grid, "cuda", adjoint="fast")


def seconds(call: Callable[[Tensor], Tensor], given: Tensor) -> float:
    call(given)
    torch.cuda.synchronize()
    start = time.perf_counter()
    call(given)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=1)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu.py: torch finds no CUDA device; nothing measured")
    print("| case | projector | forward s | adjoint s | adjoint mismatch | forward against the exact pair |")
    print("|---|---|---|---|---|---|")
    for name, ours, theirs, batch in cases(options.scale):
        x = torch.randn(batch, *ours.in_shape, device="cuda")
        y = torch.randn(batch, *ours.out_shape, device="cuda")
        seen = ours(x)
        for label, A in (("exact, torch", ours), ("ASTRA", theirs)):
            found, back = A(x), A.adjoint(y)
            ahead = dot(found.double(), y.double(), y.ndim)
            gap = abs(ahead - dot(x.double(), back.double(), x.ndim)) / (found.double().norm() * y.double().norm())
            print(
                f"| {name} | {label} | {seconds(A.forward, x):.3f} | {seconds(A.adjoint, y):.3f} "
                f"| {float(gap):.1e} | {float((found - seen).norm() / seen.norm()):.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
