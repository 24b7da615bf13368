"""Our Cartesian SENSE operator beside SigPy's on the CPU: CPU milliseconds (all threads), one run, and peak memory.

OMP_NUM_THREADS=1 python benchmarks/speed/mri_cartesian.py           # 320^2, 16 coils, 16 slices with maps of their own
OMP_NUM_THREADS=1 python benchmarks/speed/mri_cartesian.py --memory  # each case in a process of its own
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import random_mask

SIZE, COILS, SLICES = 320, 16, 16


def masks() -> dict[str, Tensor]:
    """R = 4: variable-density Poisson disc, columns, rows."""
    import sigpy.mri

    poisson = sigpy.mri.poisson((SIZE, SIZE), 4, calib=(24, 24), seed=0)
    columns = random_mask((SIZE, SIZE), 4, 24, torch.Generator().manual_seed(0))
    return {"2D Poisson": torch.from_numpy(abs(poisson) > 0), "1D columns": columns, "1D rows": columns.mT.contiguous()}


def noise(*shape: int) -> Tensor:
    """Complex white noise, made in place: no second copy in memory."""
    return torch.empty(shape, dtype=torch.complex64).normal_(generator=torch.Generator().manual_seed(1))


def sense(maps: Tensor, mask: Tensor) -> list[Any]:
    """SigPy's operator of every slice."""
    import sigpy.mri

    return [sigpy.mri.linop.Sense(m.numpy(), weights=mask.float().numpy()) for m in maps]


def cpu_ms(*calls: Callable[[], object], repeats: int = 5) -> list[float]:
    """Median CPU time of each call, by turns, after one to warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for round_ in range(repeats + 1):
        for call, found in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            if round_:
                found.append(1e3 * (time.process_time() - start))
    return [statistics.median(t) for t in times]


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def speed() -> None:
    maps, x, y = noise(SLICES, COILS, SIZE, SIZE), noise(SLICES, SIZE, SIZE), noise(SLICES, COILS, SIZE, SIZE)
    for name, mask in masks().items():
        A, S = CartesianMRI(maps, mask), sense(maps, mask)
        compare(f"forward, {name}", A.forward, S, x)
        compare(f"adjoint, {name}", A.adjoint, [s.H for s in S], y)
        compare(f"normal, {name}", A.gram, [s.N for s in S], x)


def compare(case: str, ours: Callable[[Tensor], Tensor], theirs: list[Any], data: Tensor) -> None:
    """Print a row; the results of all slices are kept, as ours keeps them."""
    arrays = list(data.numpy())

    def loop() -> list[Any]:
        return [operator * array for operator, array in zip(theirs, arrays, strict=True)]

    error = max(relative(a, torch.from_numpy(b)) for a, b in zip(ours(data), loop(), strict=True))
    mine, other = cpu_ms(lambda: ours(data), loop)
    print(f"| {case} | {mine:.0f} | SigPy {other:.0f} | {other / mine:.1f} | {error:.1e} |", flush=True)


def residual(A: LinearOperator, x: Tensor, z: Tensor, y: Tensor, weight: float) -> float:
    """|A^H (A x - y) + w (x - z)| / |A^H (A z - y)| in complex128."""
    x, z, y = (t.to(torch.complex128) for t in (x, z, y))
    return float(
        torch.linalg.vector_norm(A.adjoint(A(x) - y) + weight * (x - z)) / torch.linalg.vector_norm(A.adjoint(A(z) - y))
    )


def prox() -> None:
    """Direct solves with kept factors beside 12 iterations of CG: 320^2, 8 coils, white noise for y and z."""
    maps = birdcage_maps(8, (SIZE, SIZE), torch.Generator().manual_seed(0))
    A = CartesianMRI(maps, masks()["1D columns"])
    z, y = noise(1, SIZE, SIZE), noise(1, 8, SIZE, SIZE)
    for weight in (1e-1, 1e-3):
        start = time.process_time()
        A.prox(z, y, weight, method="direct")
        setup = 1e3 * (time.process_time() - start)

        def direct(w: float = weight) -> Tensor:
            return A.prox(z, y, w, method="direct")

        def iterated(w: float = weight) -> Tensor:
            return A.prox(z, y, w, iterations=12, tolerance=0.0, method="cg")

        mine, other = cpu_ms(direct, iterated, repeats=9)
        errors = [residual(A, solve(), z, y, weight) for solve in (direct, iterated)]
        case = f"prox, weight {weight:g}, direct (first call {setup:.0f} ms)"
        print(f"| {case} | {mine:.0f} | 12 CG {other:.0f} | {other / mine:.1f} | {errors[0]:.1e}, CG {errors[1]:.1e} |")


def memory(case: str) -> None:
    """Peak resident memory of a process, all data included, and over what there was before the call."""
    if case == "all":
        print("| normal operator | peak MB | over data and libraries, MB |\n|---|---|---|", flush=True)
        for slices, kinds in ((SLICES, ("2D Poisson", "1D columns")), (30, ("2D Poisson", "1D columns"))):
            for kind in kinds:
                for engine in ("ours", "SigPy"):
                    subprocess.run([sys.executable, __file__, "--memory", f"{slices}/{kind}/{engine}"], check=True)
        return
    count, kind, engine = case.split("/")
    mask = masks()[kind]
    maps, x = noise(int(count), COILS, SIZE, SIZE), noise(int(count), SIZE, SIZE)
    if engine == "ours":
        small = CartesianMRI(maps[:1], mask)
        small.gram(x[:1])  # libraries loaded
        before = _peak()
        result: Any = CartesianMRI(maps, mask).gram(x)
    else:
        normals = [s.N for s in sense(maps, mask)]
        normals[0] * x[0].numpy()
        before = _peak()
        result = [n * v for n, v in zip(normals, x.numpy(), strict=True)]
    peak = _peak()
    assert len(result) == int(count)
    print(f"| {count} slices, {kind}, {engine} | {peak:.0f} | {peak - before:.0f} |", flush=True)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs="?", const="all")
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    print("| case | ours ms | other ms | ratio | difference or residual |\n|---|---|---|---|---|")
    speed()
    prox()


if __name__ == "__main__":
    main()
