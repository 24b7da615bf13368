"""ReSample `fast` on three validation CT slices by start level, with and without its twin, beside TV and D(E(truth)).

    python benchmarks/start_level.py --views 30
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from medrecon.evaluate import evaluate
from medrecon.models.store import load_prior
from medrecon.pipeline.problem import build_problem
from medrecon.simulate import simulate_ct
from medrecon.solvers.resample import ReSample
from medrecon.solvers.tv import TV
from medrecon.training.slices import read_sheets
from medrecon.units import hu_to_mu
from medrecon.volume import Volume

CORPUS = Path(os.environ.get("MEDRECON_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=30)
    options = parser.parse_args()
    values = read_sheets(CORPUS / "val" / "ct_256", 1.0, -1024.0).values(torch.tensor([10, 102, 110]))
    affine = torch.diag(torch.tensor([-1.4, -1.4, 2.0, 1.0], dtype=torch.float64))  # pixel size: assumed
    truth = Volume(values.clamp(-1024, 3071), affine, "HU", "CT")
    scan = simulate_ct(truth, views=options.views, generator=torch.Generator().manual_seed(0))
    problem, index = build_problem(scan, "cpu"), slice(0, 3)
    A, y = problem.operator(index), problem.measurement(index)
    prior = problem.prior(load_prior("ct"), index)

    def show(name: str, image: torch.Tensor) -> None:
        scores = evaluate(Volume(problem.values(image), affine, "HU", "CT"), truth)
        chi2 = [round(c, 2) for c in y.chi2(A(image)).tolist()]
        full, soft = scores["psnr_db"], scores["windows"]["soft"]["psnr_db"]
        print(f"{name}: {full:.2f} / {soft:.2f} dB, chi^2/m {chi2}", flush=True)

    mu = hu_to_mu(truth.data)
    show("truth", mu)
    with torch.no_grad():
        show("D(E(truth))", prior.decode(prior.encode(mu), A.in_shape))
    show("tv", TV()(A, y, generator=torch.Generator().manual_seed(0)).image)
    for start in (0.1, 0.2, 0.4, 1.0):
        for antithetic in (True, False):
            solver = ReSample(prior, start=start, antithetic=antithetic)
            solution = solver(A, y, generator=torch.Generator().manual_seed(0))
            show(f"resample start={start} antithetic={antithetic}", solution.image)


if __name__ == "__main__":
    main()
