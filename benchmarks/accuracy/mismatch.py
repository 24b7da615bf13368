"""Annealed weights of the data where the model errs: simulated faults on a validation slice, and raw data.

    python benchmarks/accuracy/mismatch.py
    python benchmarks/accuracy/mismatch.py --cases "tooth, 23 views" --anneal 0 1 --solver resample

PSNR against the truth, or, of the tooth, the FBP of all its views; chi^2/m of views held out, where there are: how well
an image explains what was measured and not shown to it. The CT prior knows patients in HU: an acrylic disc and a tooth
are outside its training, and their units are scaled so that the object is at about 0 (disc) and 1000 HU (tooth).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from raw_data import disc, tooth
from validation_slices import validation_slices

from medrecon.core.measurement import Measurement
from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan
from medrecon.core.units import hu_to_mu
from medrecon.geometry import FanGeometry, ParallelGeometry
from medrecon.models.store import load_prior
from medrecon.operators.ct.operator import CTOperator
from medrecon.pipeline.choose import make_solver, solver_classes
from medrecon.pipeline.problem import build_problem
from medrecon.simulate import simulate_ct
from medrecon.simulate.ct import reconstruction_grid, resize
from medrecon.solvers.variational.tv import TV

SLICE, SIZE, VIEWS = 100, 256, 30


@dataclass(frozen=True, eq=False)
class Case:
    """What was measured, the attenuation that is `hu` to the prior, and what judges: a reference, other views."""

    A: CTOperator
    y: Measurement
    mu: float
    hu: float
    reference: Tensor | None
    held_out: tuple[CTOperator, Measurement] | None


def simulated(fault: Callable[[Scan], Scan]) -> Case:
    volume = validation_slices("ct", [SLICE])
    scan = simulate_ct(volume, views=VIEWS, i0=5e4, size=SIZE, generator=torch.Generator().manual_seed(0))
    problem, (grid, _) = build_problem(fault(scan), "cpu"), reconstruction_grid(volume, SIZE)
    A = problem.operator(slice(0, 1))
    assert isinstance(A, CTOperator)
    return Case(A, problem.measurement(slice(0, 1)), 0.0192, 0.0, resize(hu_to_mu(volume.data), grid.shape), None)


def off_centre(scan: Scan) -> Scan:
    """The rotation axis half a detector element from where the reconstruction takes it to be."""
    rays = scan.geometry
    assert isinstance(rays, FanGeometry)
    return replace(scan, geometry=replace(rays, det_offset=rays.det_offset + 0.5 * rays.det_spacing))


def hardened(scan: Scan) -> Scan:
    """Line integrals that lag behind by 1 % for each unit: 6 % in the middle of a thick patient."""
    return replace(scan, data=scan.data - 0.01 * scan.data.clamp_min(0).square())


def real(scan: Scan, step: int, level: float, hu: float) -> Case:
    """Every `step`-th view of slice 0; those halfway between judge."""
    rays = scan.geometry
    assert isinstance(rays, FanGeometry | ParallelGeometry)
    noise = scan.noise if isinstance(scan.noise, CTNoise) else CTNoise()
    precision = noise.precision(scan.data[:1])

    def part(first: int) -> tuple[CTOperator, Measurement]:
        A = CTOperator(replace(rays, angles=rays.angles[first::step]), scan.grid)
        return A, Measurement(scan.data[:1, first::step], precision[:, first::step])

    whole = CTOperator(rays, scan.grid).fbp(scan.data[:1])
    seen = whole[whole > 0.5 * whole.quantile(0.98)]
    full = isinstance(rays, ParallelGeometry)
    return Case(*part(0), float(seen.quantile(level)), hu, whole if full else None, part(step // 2))


CASES: dict[str, Callable[[], Case]] = {
    "right model": lambda: simulated(lambda scan: scan),
    "off centre": lambda: simulated(off_centre),
    "HTC 90 degrees, 31 views": lambda: real(disc("tb_subsample_90.mat"), 6, 0.5, 0.0),
    "tooth, 23 views": lambda: real(tooth(), 8, 0.5, 1000.0),
    "beam hardening": lambda: simulated(hardened),
}


def scores(case: Case, image: Tensor) -> str:
    """PSNR of the reference's range, chi^2/m of the views used and of those held out."""
    psnr, held = "", ""
    if case.reference is not None:
        error = (image - case.reference).square().mean()
        psnr = f"{float(10 * torch.log10(case.reference.max().square() / error)):.2f}"
    if case.held_out is not None:
        A, y = case.held_out
        held = f"{float(y.chi2(A(image))):.2f}"
    return f"{psnr} | {float(case.y.chi2(case.A(image))):.2f} | {held}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--solver", default="dds")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--anneal", type=float, nargs="+", default=[0.0, 1.0, 2.0, -1.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("case | solver | PSNR | chi^2/m | chi^2/m held out\n---|---|---|---|---", flush=True)
    for name in options.cases:
        case, g = CASES[name](), torch.Generator()
        slope = (1000.0 + case.hu) / case.mu
        prior = load_prior("ct").with_units(slope=slope, intercept=-1000.0)
        warm = TV()(case.A, case.y, generator=g).image
        print(f"{name} | tv | {scores(case, warm)}", flush=True)
        for anneal in options.anneal:
            settings: dict[str, Any] = {"anneal": anneal} | ({"steps": options.steps} if options.steps else {})
            solver: Any = make_solver(solver_classes()[options.solver], prior, settings)
            image = solver(case.A, case.y, generator=g.manual_seed(0), warm=warm).image
            print(f"{name} | {options.solver}, anneal {anneal:g} | {scores(case, image)}", flush=True)


if __name__ == "__main__":
    main()
