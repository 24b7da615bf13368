"""ReSample `fast` by the noise level it starts at, on CT that no prior was trained on: chests and a head.

    python benchmarks/design/start_level.py --views 30

Four validation slices of the corpus, and the head CT of pydicom's wheel, whose pixels are finer than the grid's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from validation_slices import validation_slices

from medrecon.core.volume import Volume
from medrecon.demo import CASES
from medrecon.models.store import load_prior
from medrecon.pipeline.problem import build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_ct
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.variational.tv import TV


def chests() -> tuple[Volume, Volume]:
    """Validation slices as they are scanned and as they should come back."""
    volume = validation_slices("ct", [10, 60, 102, 110])
    return volume, volume


def head() -> tuple[Volume, Volume]:
    case = next(c for c in CASES if c.name == "ct_head")
    volume = case.load()
    return volume, case.reference(volume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=30)
    parser.add_argument("--starts", type=float, nargs="*", default=[0.25, 0.5, 1.0, 1.6])
    parser.add_argument("--data", nargs="*", choices=["chests", "head"], default=["chests", "head"])
    parser.add_argument("--weights", default="ct", help="a prior to use in place of the shipped one")
    options = parser.parse_args()
    for name in options.data:
        volume, truth = chests() if name == "chests" else head()
        scan = simulate_ct(volume, views=options.views, size=256, generator=torch.Generator().manual_seed(0))
        problem, index = build_problem(scan, "cpu"), slice(None)
        A, y = problem.operator(index), problem.measurement(index)
        prior = problem.prior(load_prior(options.weights), index)
        solvers = {"tv": TV()} | {f"start {s:g}": ReSample(prior, start=s) for s in options.starts}
        for label, solver in solvers.items():
            image = solver(A, y, generator=torch.Generator().manual_seed(0)).image
            scores = evaluate(Volume(problem.values(image), truth.affine, "HU", "CT"), truth)
            chi2 = [round(c, 2) for c in y.chi2(A(image)).tolist()]
            soft = scores["windows"]["soft"]["psnr_db"]
            print(f"{name}, {label}: {scores['psnr_db']:.2f} / {soft:.2f} dB, chi^2/m {chi2}", flush=True)


if __name__ == "__main__":
    main()
