"""Rings in CT, spikes and zippers in MRI, on validation slices: nothing done, the classical correction, jointly;
each with the same solver of the image. PSNR in dB; prints a table.

    python benchmarks/accuracy/artefacts.py
    python benchmarks/accuracy/artefacts.py --cases "CT rings 3 %" --solvers tv dds --size 128
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from validation_slices import validation_slices

from medrecon.core.measurement import Measurement
from medrecon.core.units import hu_to_mu, mu_to_hu
from medrecon.core.volume import Volume
from medrecon.corrections.rings import remove_rings
from medrecon.diffusion.artefact import KINDS
from medrecon.models.store import load_prior
from medrecon.numerics.fourier import centred_fft, centred_ifft
from medrecon.numerics.outliers import largest_beside, running_median
from medrecon.pipeline.choose import solver_classes
from medrecon.pipeline.problem import Problem, build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.simulate import simulate_ct, simulate_mri
from medrecon.simulate.ct import reconstruction_grid, resize
from medrecon.solvers.diffusion.proximal.joint import jointly
from medrecon.solvers.variational.tv import TV

SLICES = {"ct": [10, 100], "mri": [21, 69]}
CLEAN = "none"


def rings(y: Tensor, g: torch.Generator, share: float) -> Tensor:
    """Gain errors of 1 % in all elements, and of 10 % in a share of them; one detector for all slices."""
    count = y.shape[-1]
    few = torch.rand(count, generator=g) < share
    gain = 0.01 * torch.randn(count, generator=g) + 0.1 * few * torch.randn(count, generator=g)
    return y - torch.log1p(gain)


def spikes(y: Tensor, g: torch.Generator, share: float, sampled: Tensor) -> Tensor:
    """At a share of the samples, at all coils: Gaussian, as strong as the strongest half percent of k-space."""
    hit = (torch.rand((len(y), 1, *y.shape[-2:]), generator=g) < share) * sampled
    size = y.abs().flatten().kthvalue(int(0.995 * y.numel())).values
    return y + size * hit * torch.randn(y.shape, dtype=y.dtype, generator=g)


def zipper(y: Tensor, g: torch.Generator, strength: float, sampled: Tensor, readout: int) -> Tensor:
    """Three tones between the grid's frequencies, of a phase of their own in each line, `strength` times the noise-free
    samples' rms each."""
    n, rms = y.shape[readout], float((y.abs().square().sum() / sampled.expand(y.shape).sum()).sqrt())
    lines = list(y.shape)
    lines[readout] = 1
    time = torch.arange(n).reshape(-1, 1) if readout == -2 else torch.arange(n).reshape(1, -1)
    for place in torch.rand(3, generator=g):
        each = torch.randn((*lines[:2], 1, 1), dtype=y.dtype, generator=g)
        phase = torch.polar(torch.ones(1), 6.2832 * torch.rand([lines[0], 1, *lines[2:]], generator=g))
        y = y + strength * rms * sampled * each * phase * torch.polar(torch.ones(1), 6.2832 * n * place * time / n)
    return y


def despiked(y: Measurement) -> Measurement:
    """Samples whose coils' power is 10 times the largest of the eight around count as not measured."""
    power = (y.precision * y.data.abs().square()).mean(1)
    beside = largest_beside(torch.where(power > 0, power, torch.nan), 2).nan_to_num(torch.inf)
    return Measurement(y.data, torch.where((power > 10 * beside)[:, None], 0, y.precision))


def notched(y: Measurement, readout: int) -> Measurement:
    """Positions along the readout whose power is 3 times the median of the 9 around are filled in from both sides."""
    image = centred_ifft(y.data, readout)
    power = image.abs().square().mean((1, -3 - readout), keepdim=True)
    line = power.flatten(1)
    bad = (line > 3 * running_median(line, 9, 1)).reshape(power.shape)
    sides = (image.roll(2, readout) + image.roll(-2, readout)) / 2
    return Measurement(centred_fft(torch.where(bad, sides, image), readout) * (y.precision > 0), y.precision)


@dataclass(frozen=True)
class Case:
    kind: str
    spoil: Callable[..., Tensor]
    amount: float


CASES = {
    "CT no artefact": Case("rings", rings, -1.0),
    "CT rings 1 %": Case("rings", rings, 0.01),
    "CT rings 5 %": Case("rings", rings, 0.05),
    "MRI no artefact": Case("spikes", spikes, 0.0),
    "MRI spikes 0.01 %": Case("spikes", spikes, 1e-4),
    "MRI spikes 0.1 %": Case("spikes", spikes, 1e-3),
    "MRI no zipper": Case("zipper", zipper, 0.0),
    "MRI zipper": Case("zipper", zipper, 0.1),
}


class Setting:
    """The slices of one modality measured without artefact."""

    def __init__(self, modality: str, size: int, slices: int) -> None:
        self.modality, g = modality, torch.Generator().manual_seed(0)
        volume = validation_slices(modality, SLICES[modality][:slices])
        if modality == "ct":
            scan = simulate_ct(volume, views=60, i0=5e4, size=size, generator=g)
            grid, affine = reconstruction_grid(volume, size)
            self.truth = Volume(mu_to_hu(resize(hu_to_mu(volume.data), grid.shape)), affine, "HU", "CT")
        else:
            if size < 256:
                volume = Volume(resize(volume.data, (size, size)), volume.affine, "a.u.", "MR")
            scan, self.truth = simulate_mri(volume, accel=4.0, acs=24, generator=g), volume
        self.problem: Problem = build_problem(scan, "cpu")
        self.A, self.y = self.problem.operator(slice(None)), self.problem.measurement(slice(None))

    def psnr(self, image: Tensor) -> float:
        found = Volume(self.problem.values(image), self.truth.affine, self.truth.units, self.truth.modality)
        return float(evaluate(found, self.truth)["psnr_db"])

    def spoiled(self, case: Case) -> Measurement:
        g, y = torch.Generator().manual_seed(1), self.y
        if case.amount < 0:
            return y
        more: tuple[Any, ...] = ()
        if self.modality == "mri":
            assert self.A.sampled is not None
            more = (self.A.sampled.float(),)
            more += (self.readout,) if case.kind == "zipper" else ()
        return Measurement(case.spoil(y.data, g, case.amount, *more), y.precision)

    @property
    def readout(self) -> int:
        assert self.A.sampled is not None
        return -2 if bool((self.A.sampled == self.A.sampled[..., :1, :]).all()) else -1

    def corrected(self, case: Case, y: Measurement) -> Measurement:
        if case.kind == "rings":
            return Measurement(remove_rings(y.data), y.precision)
        return despiked(y) if case.kind == "spikes" else notched(y, self.readout)


def solve(setting: Setting, name: str, prior: str, y: Measurement, kind: str | None, rounds: int = 3) -> Tensor:
    """The image by a solver, with an artefact marginal or without."""
    g, A = torch.Generator().manual_seed(0), setting.A
    if name == "tv":
        if kind is None:
            return TV()(A, y, generator=g).image
        artefact = KINDS[kind](A, y)
        S = artefact.variance(y.data, first=True)
        for _ in range(rounds):
            image = TV()(*artefact.marginal(A, S), generator=g).image
            S = artefact.variance(y.data - A(image))
        return image
    cls: Any = solver_classes()[name]
    solver = cls(setting.problem.prior(load_prior(prior), slice(None)))
    if kind is None:
        plain: Tensor = solver(A, y, generator=g).image
        return plain
    return jointly(solver, KINDS[kind](A, y), A, y, generator=g, rounds=rounds).image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--solvers", nargs="*", default=["tv", "resample"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings: dict[str, Setting] = {}
    print("| case | solver | clean data | nothing done | classical correction | joint |\n|---|---|---|---|---|---|")
    for name in options.cases:
        case, modality = CASES[name], name[:3].strip().lower()
        setting = settings.get(modality) or Setting(modality, options.size, options.slices)
        settings[modality] = setting
        prior, y = "ct" if modality == "ct" else "mri_pixel", setting.spoiled(case)
        for solver in options.solvers:
            done = [setting.y, y, setting.corrected(case, y)]
            rows = [setting.psnr(solve(setting, solver, prior, data, None)) for data in done]
            rows.append(setting.psnr(solve(setting, solver, prior, y, case.kind, options.rounds)))
            print(f"| {name} | {solver} | " + " | ".join(f"{row:.2f}" for row in rows) + " |", flush=True)


if __name__ == "__main__":
    main()
