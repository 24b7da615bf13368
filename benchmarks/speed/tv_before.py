"""TV of this checkout beside that of f2a44ff or an earlier one: wall seconds a slice, to its default stop and to an
objective no higher than the other's in any slice.

    git worktree add ../before f2a44ff
    python benchmarks/speed/tv_before.py --before ../before --slices 4

CT in 30 fan-beam views and MRI 4x with 8 coils, 256 x 256, validation slices, one batch. Each side runs in a process of
its own, best of three runs. Use an idle machine.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parents[2]
NUMBERS = {"ct": [10, 60, 102, 110], "mri": [20, 120, 220, 330]}
STRENGTH = 0.4
"""The default of both."""


class Side:
    """The data of a measurement file and the TV of the medrecon that is on the path."""

    def __init__(self, path: Path, reader: str, solver: str) -> None:
        scan = importlib.import_module(reader).load_scan(path)
        problem = importlib.import_module("medrecon.pipeline.problem").build_problem(scan, "cpu")
        self.A, self.y = problem.operator(slice(None)), problem.measurement(slice(None))
        self.tv: Any = importlib.import_module(solver).TV

    def run(self, **settings: float) -> tuple[Any, float]:
        """Return the solution and the seconds a slice of the quickest of three runs, after one that compiles."""
        self.tv(iterations=2)(self.A, self.y, generator=torch.Generator())
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            solution = self.tv(**settings)(self.A, self.y, generator=torch.Generator())
            seconds.append(time.perf_counter() - start)
        return solution, min(seconds) / len(self.y.data)


def before(path: Path) -> None:
    """Write image, seconds and steps of the other checkout beside the measurement."""
    solution, seconds = Side(path, "medrecon.io.scan", "medrecon.solvers.tv").run()
    torch.save((solution.image, seconds, len(solution.residuals)), path.with_suffix(".pt"))


def after(path: Path, name: str) -> str:
    """Return a line of the table."""
    from medrecon.numerics.differences import total_variation

    side = Side(path, "medrecon.formats.measurement_file", "medrecon.solvers.variational.tv")
    image, old_seconds, old_steps = torch.load(path.with_suffix(".pt"), weights_only=True)
    solution, seconds = side.run()
    pixels = image[0].numel()
    floor = STRENGTH * pixels / solution.diagnostics["weight"] - total_variation(solution.image, 2)

    def objective(x: Tensor) -> Tensor:
        """chi^2 / 2 + strength pixels log(TV + floor) of each slice: what the re-estimated lambda stands for."""
        chi2: Tensor = side.y.chi2(side.A(x)) * side.y.measured / 2
        return chi2.double() + STRENGTH * pixels * (total_variation(x, 2) + floor).double().log()

    for steps in range(10, len(solution.residuals) + 1, 10):
        same, same_seconds = side.run(iterations=steps, tolerance=1e-9)
        if bool((objective(same.image) <= objective(image)).all()):
            break
    return (
        f"| {name} | {old_seconds:.2f} | {old_steps} | {same_seconds:.2f} | {steps} | {old_seconds / same_seconds:.1f} "
        f"| {seconds:.2f} | {len(solution.residuals)} | {old_seconds / seconds:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of another state")
    parser.add_argument("--slices", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measurement", type=Path, help="of the process of the other checkout")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measurement:
        return before(options.measurement)
    from validation_slices import validation_slices

    from medrecon.formats.measurement_file import save_scan
    from medrecon.simulate import simulate_ct, simulate_mri

    print("| data | before, s a slice | steps | as low | steps | ratio | default | steps | ratio |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, numbers in NUMBERS.items():
            volume, g = validation_slices(name, numbers[: options.slices]), torch.Generator().manual_seed(0)
            scan = simulate_ct(volume, views=30, generator=g) if name == "ct" else simulate_mri(volume, generator=g)
            path = Path(folder) / f"{name}.h5"
            save_scan(scan, path)
            command = [sys.executable, __file__, "--measurement", str(path), "--threads", str(options.threads)]
            environment = {**os.environ, "PYTHONPATH": str(options.before.resolve())}
            subprocess.run(command, check=True, env=environment, cwd=options.before)
            print(after(path, name), flush=True)


if __name__ == "__main__":
    main()
