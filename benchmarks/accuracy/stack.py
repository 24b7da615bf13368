"""A stack of neighbouring validation slices of CT: diffusion-mbir, which couples them, against slice-wise DDS and TV.

    python benchmarks/accuracy/stack.py --views 30 --every 2
    python benchmarks/accuracy/stack.py --crop 128 --size 128 --rho 0.3 1 3 --threshold 0.25 0.5 1

Jitter is the rms over pixels of D (x - truth), D the difference of neighbours, in HU: smoother than the truth counts as
much as rougher. `rough` is the mean |D x| over that of the truth.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from validation_slices import validation_slices

from medrecon.core.units import hu_to_mu, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.models.store import load_prior
from medrecon.pipeline.problem import build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_ct
from medrecon.simulate.ct import reconstruction_grid, resize
from medrecon.solvers.base import Solver
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.proximal.diffusion_mbir import DiffusionMBIR
from medrecon.solvers.variational.tv import TV


class Case:
    """A simulated stack with its reference on the reconstruction's grid, HU."""

    def __init__(self, numbers: list[int], views: int, size: int, crop: int) -> None:
        whole, cut = validation_slices("ct", numbers), slice(128 - crop // 2, 128 + crop // 2)
        volume = Volume(whole.data[:, cut, cut], whole.affine, "HU", "CT")
        scan = simulate_ct(volume, views=views, i0=5e4, size=size, generator=torch.Generator().manual_seed(0))
        grid, self.affine = reconstruction_grid(volume, size)
        self.truth = mu_to_hu(resize(hu_to_mu(volume.data), grid.shape))
        self.problem, self.every = build_problem(scan, "cpu"), slice(0, len(numbers))
        self.prior = self.problem.prior(load_prior("ct"), self.every)
        self.A, self.y = self.problem.operator(self.every), self.problem.measurement(self.every)
        self.warm: Tensor | None = None

    def row(self, label: str, solver: Solver, seed: int) -> str:
        """One line of the table; learned solvers start from the same TV image."""
        start, given = time.process_time(), {} if isinstance(solver, TV) else {"warm": self.warm}
        solution = solver(self.A, self.y, generator=torch.Generator().manual_seed(seed), **given)  # type: ignore[arg-type]
        seconds = (time.process_time() - start) / len(self.truth)
        if isinstance(solver, TV):
            self.warm = solution.image
        x = self.problem.values(solution.image)
        scores = evaluate(Volume(x, self.affine, "HU", "CT"), Volume(self.truth, self.affine, "HU", "CT"))
        jitter = torch.diff(x - self.truth, dim=0).square().mean().sqrt()
        rough = torch.diff(x, dim=0).abs().mean() / torch.diff(self.truth, dim=0).abs().mean()
        cells = [
            label,
            f"{scores['psnr_db']:.2f}",
            f"{scores['windows']['soft']['psnr_db']:.2f}",
            f"{float(jitter):.1f}",
        ]
        return " | ".join([*cells, f"{float(rough):.2f}", f"{float(solution.chi2.mean()):.2f}", f"{seconds:.1f}"])

    def solvers(self, options: argparse.Namespace) -> Iterator[tuple[str, Solver]]:
        yield "tv", TV()
        law = {"start": options.start, "steps": options.steps, "end": None, "cg_iterations": 5}
        yield "dds", DDS(self.prior, **law)
        for rho, threshold in itertools.product(options.rho, options.threshold):
            yield (
                f"diffusion-mbir {rho:g} {threshold:g}",
                DiffusionMBIR(self.prior, rho=rho, threshold=threshold, **law),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=30)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--crop", type=int, default=256, help="pixels of the middle, taken for all there is")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--first", type=int, default=20, help="of the validation slices")
    parser.add_argument("--every", type=int, default=1, help="take every n-th slice: thicker gaps")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--start", type=float, default=0.25)
    parser.add_argument("--rho", type=float, nargs="+", default=[1.0])
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.5])
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = list(range(options.first, options.first + options.every * options.count, options.every))
    case = Case(numbers, options.views, options.size, options.crop)
    print("solver | PSNR | soft PSNR | jitter HU | rough | chi^2/m | s a slice", flush=True)
    for label, solver in case.solvers(options):
        for seed in range(1 if isinstance(solver, TV) else options.seeds):
            print(case.row(label, solver, seed), flush=True)


if __name__ == "__main__":
    main()
