"""Our CT projectors beside ASTRA's on the CPU: CPU seconds a slice (all threads), forward and adjoint, one run.

python benchmarks/speed/projectors.py           # 256^2 and 512^2; 1, 4, 16, 32 and 64 slices
python benchmarks/speed/projectors.py --memory  # peak memory beside image and sinogram, each in a process of its own
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from medrecon.geometry import FanGeometry, Geometry, ImageGrid, ParallelGeometry
from medrecon.operators.ct.operator import Backend, CTOperator

SIZES = {"256, 60 views": (256, 60), "512, 180 views": (512, 180)}


def geometries(size: int, views: int) -> dict[str, Geometry]:
    """Parallel over 180 and fan over 360 degrees, detectors that cover the image, 1 mm pixels."""
    half = tuple(k * math.pi / views for k in range(views))
    full = tuple(2 * a for a in half)
    elements = math.ceil(1.42 * size)
    return {
        "parallel": ParallelGeometry(half, elements, 1.0),
        "fan": FanGeometry(full, elements, 1.9, 2.0 * size, 1.6 * size),
    }


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU time of all threads, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", nargs="?", const="all")
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    print("| case | slices | backend | forward ms | x ASTRA | adjoint ms | x ASTRA |\n|---|---|---|---|---|---|---|")
    for size, (n, views) in SIZES.items():
        for name, geometry in geometries(n, views).items():
            compare(f"{size}, {name}", geometry, ImageGrid((n, n), (1.0, 1.0)), options.batches, options.repeats)


def compare(case: str, geometry: Geometry, grid: ImageGrid, batches: list[int], repeats: int) -> None:
    """Print the rows of one geometry."""
    fan = isinstance(geometry, FanGeometry)
    astra = CTOperator(geometry, grid, "astra", "line" if fan else "linear")
    x = torch.rand(max(batches), *grid.shape, generator=torch.Generator().manual_seed(0))
    y = torch.rand(len(x), *astra.out_shape)

    def times(A: CTOperator, batch: int) -> list[float]:
        calls: tuple[Callable[[], object], ...] = (lambda: A(x[:batch]), lambda: A.adjoint(y[:batch]))
        return [cpu_seconds(call, repeats) / batch for call in calls]

    base = times(astra, 1)
    print(f"| {case} | 1 | astra | {base[0] * 1e3:.2f} | 1 | {base[1] * 1e3:.2f} | 1 |", flush=True)
    # The matrix of 512 x 512 and 180 views takes minutes to build.
    backends: tuple[Backend, ...] = ("matrix", "joseph") if grid.shape[0] <= 256 else ("joseph",)
    for backend in backends:
        A = CTOperator(geometry, grid, backend, "linear")
        for batch in batches:
            cells = [f"{t * 1e3:.2f} | {b / t:.1f}" for t, b in zip(times(A, batch), base, strict=True)]
            print(f"| {case} | {batch} | {backend} | {' | '.join(cells)} |", flush=True)


def memory(case: str) -> None:
    """Peak resident memory of a call over what was there before, relative to image and sinogram together."""
    if case == "all":
        print("| slices of 512², 180 views, parallel | call | data MB | peak beside them | ratio |")
        print("|---|---|---|---|---|")
        for which in ("64 forward", "64 adjoint", "256 forward", "256 adjoint"):
            subprocess.run([sys.executable, __file__, "--memory", which], check=True)
        return
    slices, call = case.split()
    A = CTOperator(geometries(512, 180)["parallel"], ImageGrid((512, 512), (1.0, 1.0)), "joseph")
    x, y = torch.rand(int(slices), *A.in_shape), torch.rand(int(slices), *A.out_shape)
    A.adjoint(A(x[:1]))  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = A(x) if call == "forward" else A.adjoint(y)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - result.nbytes
    data = x.nbytes + y.nbytes
    print(f"| {slices} | {call} | {data / 2**20:.0f} | {extra / 2**20:.0f} MB | {extra / data:.2f} |")


if __name__ == "__main__":
    main()
