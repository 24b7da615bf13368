"""Classical CT solvers on six validation subjects: sparse views and low dose, at defaults or along one setting.

    python benchmarks/design/tune_classical.py
    python benchmarks/design/tune_classical.py --solvers huber --vary strength 0.1 0.2 0.4 --cases "low dose"

Simulated at twice the resolution of the reconstruction with another projector (no inverse crime). PSNR over the full
range (4095 HU) and in the soft-tissue window (400 HU), RMSE in HU, chi^2/m of the image and of the truth.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from validation_slices import validation_slices

from medrecon.core.units import hu_to_mu, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.operators.ct.operator import CTOperator
from medrecon.pipeline.choose import make_solver, solver_classes
from medrecon.pipeline.problem import build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_ct
from medrecon.simulate.ct import reconstruction_grid, resize

SLICES = [10, 98, 100, 102, 105, 110]
"""One slice a subject: chest, chest, abdomen, chest, pelvis, abdomen."""
CASES: dict[str, dict[str, Any]] = {
    "60 views": {"views": 60, "i0": 5e4},
    "30 views": {"views": 30, "i0": 5e4},
    "low dose": {"views": 360, "i0": 5e3},
}
SOLVERS = ("fbp", "sirt", "sart", "cgls", "huber", "tv", "asd-pocs")


class Case:
    """The slices measured: operator, measurement, and the reference on the reconstruction's grid."""

    def __init__(self, name: str, size: int, slices: int = len(SLICES)) -> None:
        volume = validation_slices("ct", SLICES[:slices])
        scan = simulate_ct(volume, size=size, generator=torch.Generator().manual_seed(0), **CASES[name])
        grid, self.affine = reconstruction_grid(volume, size)
        self.truth = resize(hu_to_mu(volume.data), grid.shape)
        self.problem = build_problem(scan, "cpu")
        everything = slice(0, slices)
        A, self.y = self.problem.operator(everything), self.problem.measurement(everything)
        assert isinstance(A, CTOperator)
        self.A = CTOperator(A.geometry, A.grid, "matrix")  # 360 views too: the same engine for every case
        self.A.gram(self.truth)  # the matrix is built now, outside the timing

    def row(self, name: str, settings: dict[str, Any]) -> str:
        """One line of the table."""
        solver = make_solver(solver_classes()[name], None, settings)
        start = time.process_time()
        solution = solver(self.A, self.y, generator=torch.Generator().manual_seed(0))
        seconds = (time.process_time() - start) / len(self.truth)
        reference = Volume(mu_to_hu(self.truth), self.affine, "HU", "CT")
        scores = evaluate(Volume(self.problem.values(solution.image), self.affine, "HU", "CT"), reference)
        soft, label = scores["windows"]["soft"], " ".join([name, *(f"{k}={v}" for k, v in settings.items())])
        return (
            f"{label} | {scores['psnr_db']:.2f} | {soft['psnr_db']:.2f} | {scores['rmse']:.1f} | "
            f"{float(solution.chi2.mean()):.2f} | {len(solution.residuals)}{'' if solution.converged else '+'} | "
            f"{seconds:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="rows of the reconstruction, at most 256")
    parser.add_argument("--slices", type=int, default=len(SLICES), help="the first so many subjects")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS))
    parser.add_argument("--vary", nargs="+", default=[], help="a setting, then its values")
    parser.add_argument("--set", nargs="*", default=[], help="name=value, held fixed")
    options = parser.parse_args()
    fixed = dict(pair.split("=", 1) for pair in options.set)
    print("case | solver | PSNR dB | soft PSNR dB | RMSE HU | χ²/m | iterations (+: not converged) | CPU s/slice")
    print("---|---|---|---|---|---|---|---")
    for name in options.cases:
        case = Case(name, options.size, options.slices)
        print(f"{name} | truth | | | | {float(case.y.chi2(case.A(case.truth)).mean()):.2f} | |")
        for solver in options.solvers:
            for value in options.vary[1:] or [None]:
                settings = fixed if value is None else {**fixed, options.vary[0]: value}
                print(f"{name} | {case.row(solver, settings)}", flush=True)


if __name__ == "__main__":
    main()
