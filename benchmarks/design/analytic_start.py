"""What an analytic start gains at equal network calls (arXiv 2303.02490): a Gaussian from sigma_max to a level, then
the network. Here the network is the exact denoiser of a mixture fitted to MRI slices, so that the flow is known.

    MEDRECON_CORPUS=... OMP_NUM_THREADS=1 python benchmarks/design/analytic_start.py

The error is that of the end of the probability-flow ODE, which 400 steps give, over the images' deviation; and beside
it how many of the samples end in another component of the mixture than they should.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpus import CORPUS

from medrecon.diffusion.reverse import sample
from medrecon.diffusion.samplers.base import sampler_named
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.denoiser import Denoiser
from medrecon.models.exact.mixture import StationaryMixture, fit_mixture
from medrecon.training.images.slices import read_sheets

LOW, HIGH, COUNT = 0.02, 80.0, 48


@dataclass(eq=False)
class Counted(Denoiser):
    """A denoiser that counts its calls."""

    known: Denoiser
    sigma_min: float = LOW
    sigma_max: float = HIGH
    calls: int = 0

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.known(z, sigma)


def oracle() -> tuple[StationaryMixture, StationaryMixture]:
    """A mixture of eight, and the one Gaussian, of validation slices averaged down to 32 x 32, of unit deviation."""
    sheets = read_sheets(CORPUS / "val" / "mri_256", 1.0, 0.0)
    x = avg_pool2d(sheets.values(torch.arange(391)).double()[:, None], 8)
    x = (x - x.mean()) / x.std()
    return tuple(fit_mixture(x, k, torch.Generator().manual_seed(0)) for k in (8, 1))  # type: ignore[return-value]


def main() -> None:
    torch.set_num_threads(1)
    mixture, gaussian = oracle()
    g = torch.Generator().manual_seed(1)
    z = HIGH * torch.randn(COUNT, 1, 32, 32, generator=g).double()
    exact = sampler_named("exponential", 0.0)
    truth = sample(mixture, exact, z, log_uniform(300, LOW, HIGH), g)
    own = mixture.responsibilities(truth, LOW).argmax(1)
    print("| sampler | network calls | from | error | other component |\n|---|---|---|---|---|")
    for name in ("ddim", "multistep"):
        for calls in (5, 10):
            for skip in (HIGH, 20.0, 10.0, 5.0, 2.0):
                counted, sampler = Counted(mixture), sampler_named(name, 0.0)
                start = z if skip == HIGH else sample(gaussian, exact, z, log_uniform(201, skip, HIGH)[:-1], g)
                levels = log_uniform(calls - (name == "exponential"), LOW, skip)  # its first step takes two calls
                end = sample(counted, sampler, start, levels, g)
                error = float((end - truth).square().mean().sqrt())
                wrong = float((mixture.responsibilities(end, LOW).argmax(1) != own).double().mean())
                print(f"| {name} | {counted.calls} | {skip:g} | {error:.3f} | {wrong:.0%} |", flush=True)


if __name__ == "__main__":
    main()
