"""Independent samples per network call: the chain of `dlg` against runs from noise, on a Gaussian posterior.

    OMP_NUM_THREADS=1 python benchmarks/posterior/chain_samples.py

The guide knows E[z0 | z, y] in closed form, so that a call costs nothing and what differs is the way of sampling alone.
The number of independent samples that a chain's mean is worth is read off how much the means of many chains differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from oracle_problem import NOISE, Oracle
from torch import Tensor

from medrecon.diffusion.draw import Draw, Independent
from medrecon.diffusion.guide import Estimate, Guide
from medrecon.diffusion.reverse import State, reverse
from medrecon.diffusion.samplers.base import Sampler, sampler_named
from medrecon.diffusion.schedules import log_uniform
from medrecon.models.exact.gaussian import GaussianPrior
from medrecon.solvers.diffusion.sampling.dlg import DLG, Chain

CHAINS, STATES = 128, 24


@dataclass(eq=False)
class Counted(Guide):
    """E[z0 | z, y], and how often it was asked for."""

    posterior: GaussianPrior
    calls: int = 0

    def __call__(self, z: Tensor, sigma: float) -> Estimate:
        self.calls += 1
        clean = self.posterior(z, torch.tensor(sigma, dtype=torch.float64))
        return Estimate(clean, clean, clean[:, 0], sigma)


class Kept(Chain):
    """A chain whose samples are kept one by one."""

    kept: list[Tensor]

    def sample(self, guide: Guide, z: Tensor, sigma: float, draw: Draw) -> Tensor:
        self.kept.append(super().sample(guide, z, sigma, draw))
        return self.kept[-1]


def posterior(oracle: Oracle) -> GaussianPrior:
    prior = oracle.prior.denoiser
    assert isinstance(prior, GaussianPrior)
    seen = (oracle.y.precision[0] > 0).flatten()
    found = prior.posterior(torch.eye(len(prior.mean))[seen], oracle.y.data.flatten()[seen], NOISE)
    return GaussianPrior(*found, prior.shape)


def ends(guide: Counted, sampler: Sampler, levels: list[float]) -> Tensor:
    """Samples (CHAINS, STATES, H, W); one state where the sampler is no chain."""
    draw = Independent(torch.Generator().manual_seed(0), each=CHAINS)
    z = levels[0] * draw(torch.empty(CHAINS, *guide.posterior.shape, dtype=torch.float64))
    end = reverse(guide, sampler, levels, draw, State.start(z, draw))
    return torch.stack(sampler.kept, 1) if isinstance(sampler, Kept) else end.z


def row(name: str, guide: Counted, sampler: Sampler, levels: list[float]) -> str:
    x, exact = ends(guide, sampler, levels), guide.posterior
    scale = float(exact.covariance.diag().mean())
    each = float(x.flatten(0, 1).var(0).mean())
    worth = x.shape[1] if x.shape[1] == 1 else each / float(x.mean(1).var(0).mean())
    centre = float((x.mean((0, 1)).flatten() - exact.mean).square().mean() / scale) ** 0.5
    chance = (each / scale / (CHAINS * worth)) ** 0.5
    return (
        f"| {name} | {guide.calls} | {x.shape[1]} | {worth:.1f} | {worth / guide.calls:.3f} | {centre:.3f} | "
        f"{chance:.3f} | {(each / scale) ** 0.5:.3f} |"
    )


def main() -> None:
    torch.set_num_threads(1)
    oracle = Oracle.draw(0)
    exact, high, low = posterior(oracle), oracle.prior.denoiser.sigma_max, oracle.prior.denoiser.sigma_min
    print("| law | calls | samples | worth | worth per call | error of the mean | of it by chance | spread |")
    print("|---|---|---|---|---|---|---|---|")
    for name, steps in (
        ("multistep", 12),
        ("multistep", 25),
        ("exponential", 8),
        ("exponential", 12),
        ("ancestral", 100),
    ):
        sampler = sampler_named(name, 1.0 if name == "ancestral" else 0.0)
        levels = log_uniform(steps, low, high).tolist()
        print(row(f"independent, {name}, {steps} levels", Counted(exact), sampler, levels), flush=True)
    for sigma, short in ((0.1, 4), (0.3, 5), (0.3, 8), (1.0, 8), (3.0, 8), (3.0, 12)):
        for skip in (1, 2, 4, 8):
            solver = DLG(
                oracle.prior, start=high, end=low, steps=12, sigma=sigma, short=short, states=STATES, skip=skip
            )
            chain = solver.stepper()
            kept = Kept(chain.length, chain.skip, chain.below)
            object.__setattr__(kept, "kept", [])
            name = f"chain at {sigma:g}, {short} levels below, every {skip}"
            print(row(name, Counted(exact), kept, solver.levels()), flush=True)


if __name__ == "__main__":
    main()
