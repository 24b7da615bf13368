"""TV beside the plain primal-dual method on validation slices: operator calls, seconds and the objective reached.

    python benchmarks/speed/tv_time.py --threads 2 --slices 4

CT in 30 fan-beam views and MRI 4x with 8 coils, 256 x 256. The plain method (Chambolle & Pock 2011, steps of Pock &
Chambolle 2011) minimises the same objective and runs until it is as low as what `TV` returned, or for 400 steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from validation_slices import validation_slices

from medrecon.core.measurement import Measurement
from medrecon.numerics.differences import gradient, gradient_adjoint, magnitude, total_variation
from medrecon.numerics.linalg import cg, dot, expand, power_norms
from medrecon.operators.base import LinearOperator
from medrecon.operators.normal import normal
from medrecon.pipeline.problem import build_problem
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.solvers.variational.tv import TV

NUMBERS = {"ct": [10, 60, 102, 110], "mri": [20, 120, 220, 330]}
MOST = 400


def allowed(x: Tensor, support: Tensor | None) -> Tensor:
    x = x if x.is_complex() else x.clamp_min(0)
    return x if support is None else x * support


def plain(A: LinearOperator, y: Measurement, strength: float, enough: Callable[[Tensor, Tensor], bool]) -> int:
    """Return the number of primal-dual steps until `enough`(image, A image), asked every ten; lambda as in `TV`."""
    n = len(A.in_shape)
    x = allowed(cg(normal(A, y.precision), A.adjoint(y.precision * y.data), ndim=n, iterations=5).x, A.support)
    seen, floor = A(x), total_variation(x, n) / 4
    dual, field = y.precision * (seen - y.data), torch.zeros_like(gradient(x, n))
    power = y.precision.expand(y.data.shape)
    share = (power / expand(power.flatten(1).mean(1), len(A.out_shape))).sqrt()
    curvature = torch.ones_like(x.real)
    if not x.is_complex():
        curvature = A.adjoint(share * A(torch.ones_like(x))).abs()
        curvature = torch.maximum(curvature, 0.01 * expand(curvature.flatten(1).amax(1), n))
    mean, root = curvature.flatten(1).mean(1).sqrt(), curvature.sqrt()
    norm = power_norms(lambda v: A.adjoint(share * A(v / root)) / root, torch.ones_like(x), n)
    ratio = 2 * power.flatten(1).sum(1).sqrt() / dot(x, x, n).sqrt()
    tau = expand(mean / (2 * ratio * norm), n) / curvature
    sigma = expand(ratio / (norm * mean), len(A.out_shape)) * share + torch.finfo(torch.float32).tiny
    stiff = 1 / (8 * n * torch.nn.functional.max_pool2d(tau, 3, 1, 1))
    weight = strength * x[0].numel() / (5 * floor)
    for step in range(1, MOST + 1):
        new = allowed(x - tau * (A.adjoint(dual) + gradient_adjoint(field, n)), A.support)
        new_seen = A(new)
        if step % 10 == 0 and enough(new, new_seen):
            return step
        new_dual = (dual + sigma * (2 * new_seen - seen - y.data)) * (y.precision / (y.precision + sigma))
        weight = torch.lerp(weight, strength * x[0].numel() / (total_variation(new, n) + floor), 0.1)
        new_field = field + stiff * gradient(2 * new - x, n)
        new_field = new_field / (magnitude(new_field) / expand(weight, n)).clamp_min(1)
        x, seen, dual, field = (
            torch.lerp(a, b, 1.8) for a, b in ((x, new), (seen, new_seen), (dual, new_dual), (field, new_field))
        )
    return MOST


def objective(y: Measurement, strength: float, floor: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """chi^2 / 2 + strength pixels log(TV + floor) of each item: what the re-estimated lambda stands for."""
    log = (total_variation(x, x.ndim - 1) + floor).double().log()
    return (y.chi2(seen) * y.measured / 2).double() + strength * x[0].numel() * log


def compare(modality: str, slices: int) -> str:
    """One line of the table."""
    volume, g = validation_slices(modality, NUMBERS[modality][:slices]), torch.Generator().manual_seed(0)
    scan = simulate_ct(volume, views=30, generator=g) if modality == "ct" else simulate_mri(volume, generator=g)
    problem, every = build_problem(scan, "cpu"), slice(None)
    A, y = problem.operator(every), problem.measurement(every)
    A.adjoint(A(A.adjoint(y.data)))  # what is built or compiled at the first use
    solver, clocks = TV(), []
    clocks.append((time.process_time(), time.perf_counter()))
    solution = solver(A, y, generator=g)
    clocks.append((time.process_time(), time.perf_counter()))
    x, steps = solution.image, len(solution.residuals)
    floor = solver.strength * x[0].numel() / solution.diagnostics["weight"] - total_variation(x, x.ndim - 1)
    goal = objective(y, solver.strength, floor, x, A(x)).sum()
    clocks.append((time.process_time(), time.perf_counter()))
    count = plain(A, y, solver.strength, lambda v, s: bool(objective(y, solver.strength, floor, v, s).sum() <= goal))
    clocks.append((time.process_time(), time.perf_counter()))
    cpu, plain_cpu, wall, plain_wall = ((clocks[k + 1][i] - clocks[k][i]) / slices for i in (0, 1) for k in (0, 2))
    return (
        f"| {modality} | {slices} | {steps} | {count}{'+' if count == MOST else ''} | {cpu:.2f} | {plain_cpu:.2f} "
        f"| {plain_cpu / cpu:.1f} | {wall:.2f} | {plain_wall:.2f} | {plain_wall / wall:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--data", nargs="*", choices=["ct", "mri"], default=["ct", "mri"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| data | slices | steps | plain | CPU s a slice | plain | ratio | wall s a slice | plain | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for modality in options.data:
        for slices in options.slices:
            print(compare(modality, slices), flush=True)


if __name__ == "__main__":
    main()
