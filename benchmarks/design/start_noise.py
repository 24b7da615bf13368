"""Whether a start noise that is best on some subjects is better on others too (arXiv 2305.15357): K candidates, the
best of the calibration subjects' mean PSNR, and by how much it beats the mean candidate on the held-out subjects.

    MEDRECON_CORPUS=... OMP_NUM_THREADS=1 python benchmarks/design/start_noise.py ct --start noise

A slice of each validation subject, 64 x 64: the middle of it (CT) or all of it, coarser (MRI). Subjects 0, 2, 4, ...
calibrate. Without fresh noise, eta = 0, the start noise is all that differs between two runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpus import CORPUS
from validation_slices import PITCH

from medrecon.core.volume import Volume
from medrecon.models.store import load_prior
from medrecon.pipeline.problem import build_problem
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.solvers.diffusion.base import DiffusionSolver
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.variational.tv import TV
from medrecon.training.images.slices import read_sheets


def subjects(modality: str) -> Volume:
    """The middle slice of each validation subject, 64 x 64 pixels."""
    sheets = read_sheets(CORPUS / "val" / f"{modality}_256", 1.0, -1024.0 if modality == "ct" else 0.0)
    middle = [places[len(places) // 2] for places in _places(sheets.subjects).values()]
    values = sheets.values(torch.tensor(middle))
    # MRI whole, at a quarter of its resolution: coil maps want air around the head.
    pitch = PITCH[modality] * (1 if modality == "ct" else 4)
    values = values[:, 96:160, 96:160].clone() if modality == "ct" else avg_pool2d(values[:, None], 4)[:, 0]
    affine = torch.diag(torch.tensor([-pitch, -pitch, 2.0, 1.0], dtype=torch.float64))
    if modality == "ct":
        return Volume(values.clamp(-1024, 3071), affine, "HU", "CT")
    return Volume(values, affine, "a.u.", "MR")


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        places.setdefault(name, []).append(k)
    return places


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """Of each slice (B,), the peak its own range."""
    peak = truth.flatten(1).amax(1) - truth.flatten(1).amin(1)
    return 10 * (peak.square() / (found - truth).square().flatten(1).mean(1)).log10()


def scores(modality: str, solver: str, start: str, steps: int, seeds: int) -> Tensor:
    """PSNR (seeds, subjects)."""
    volume, g = subjects(modality), torch.Generator().manual_seed(0)
    if modality == "ct":
        scan = simulate_ct(volume, views=30, i0=5e4, size=64, generator=g)
    else:
        scan = simulate_mri(volume, accel=4.0, acs=8, generator=g)
    problem, index = build_problem(scan, "cpu"), slice(None)
    A, y = problem.operator(index), problem.measurement(index)
    prior = problem.prior(load_prior(modality if solver == "resample" else f"{modality}_pixel"), index)
    run: DiffusionSolver = ReSample(prior)
    if solver == "dds":
        level = prior.denoiser.sigma_max if start == "noise" else 0.25
        run = DDS(prior, steps=steps, eta=0.0, start=level, end=None, cg_iterations=5)
    warm = None if start == "noise" else TV()(A, y, generator=g).image
    rows = []
    for seed in range(seeds):
        image = run(A, y, generator=torch.Generator().manual_seed(seed), warm=warm).image
        rows.append(psnr(problem.values(image).float(), volume.data.float()))
        print(f"seed {seed}: {rows[-1].mean():.3f} dB", file=sys.stderr, flush=True)
    return torch.stack(rows)


def report(found: Tensor) -> str:
    """Whether the best of the even subjects is better than the mean candidate on the odd ones."""
    calibration, held_out = found[:, ::2], found[:, 1::2]
    best = int(calibration.mean(1).argmax())
    gain = held_out[best] - held_out.mean(0)
    own = float(calibration[best].mean() - calibration.mean())
    error = float(gain.std() / len(gain) ** 0.5)
    between = float(np.corrcoef(calibration.mean(1), held_out.mean(1))[0, 1])
    return (
        f"{found.shape[0]} seeds: the best, {best}, gains {own:+.3f} dB where chosen and {float(gain.mean()):+.3f} "
        f"(standard error {error:.3f}, {int((gain > 0).sum())} of {len(gain)} subjects) where not; seeds differ by "
        f"{float(found.mean(1).std()):.3f} dB in their means, by {float(found.std(0).mean()):.3f} within a subject; "
        f"correlation of the two halves' means over seeds {between:+.2f}; mean {float(found.mean()):.2f} dB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", choices=["ct", "mri"])
    parser.add_argument("--solver", choices=["dds", "resample"], default="dds")
    parser.add_argument("--start", choices=["noise", "tv"], default="noise")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = scores(options.modality, options.solver, options.start, options.steps, options.seeds)
    print(f"{options.modality} {options.solver} {options.start} {options.steps} steps, " + report(found), flush=True)


if __name__ == "__main__":
    main()
