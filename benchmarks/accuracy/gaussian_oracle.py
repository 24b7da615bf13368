"""How far the posterior samplers are from an exact posterior: posterior solvers under several samplers, and
solvers that return a point, on a Gaussian whose posterior is known. Writes the table of docs/design/oracle_table.md.

    OMP_NUM_THREADS=1 python benchmarks/accuracy/gaussian_oracle.py
    python benchmarks/accuracy/gaussian_oracle.py --samples 256 --out runs/oracle.md
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.diffusion.reverse import reverse
from medrecon.models.exact.gaussian import GaussianPrior
from medrecon.models.prior import Prior
from medrecon.operators.algebra import Diagonal
from medrecon.solvers.base import Solver
from medrecon.solvers.diffusion.base import GuidedSolver, LevelSolver, example_prior
from medrecon.solvers.diffusion.gradient.dps import DPS
from medrecon.solvers.diffusion.gradient.mmps import MMPS
from medrecon.solvers.diffusion.gradient.pigdm import PiGDM
from medrecon.solvers.diffusion.gradient.psld import PSLD
from medrecon.solvers.diffusion.proximal.daps import DAPS
from medrecon.solvers.diffusion.proximal.ddnm import DDNM
from medrecon.solvers.diffusion.proximal.ddrm import DDRM
from medrecon.solvers.diffusion.proximal.dds import DDS
from medrecon.solvers.diffusion.proximal.diffpir import DiffPIR
from medrecon.solvers.diffusion.proximal.diffusion_mbir import DiffusionMBIR
from medrecon.solvers.diffusion.proximal.flowchef import FlowChef
from medrecon.solvers.diffusion.proximal.latino import LATINO
from medrecon.solvers.diffusion.proximal.score_sde import ScoreSDE
from medrecon.solvers.diffusion.resample.fast import ReSample
from medrecon.solvers.diffusion.sampling.afdps import AFDPS
from medrecon.solvers.diffusion.sampling.dlg import DLG
from medrecon.solvers.diffusion.sampling.pula import PULA
from medrecon.solvers.plug_and_play.dpir import DPIR
from medrecon.solvers.plug_and_play.pnp_admm import PnPADMM
from medrecon.solvers.plug_and_play.pnp_fbs import PnPFBS
from medrecon.solvers.plug_and_play.red import RED
from medrecon.solvers.plug_and_play.red_diff import REDDiff

SIZE, NOISE, SEEN = 16, 0.05, 0.4
SLICES, ALONG = 8, 0.98
"""of a stack, and the correlation of neighbours in it"""
TABLE = Path(__file__).parents[2] / "docs" / "design" / "oracle_table.md"
SAMPLERS = (
    ("ddim", 0.0),
    ("ddim", 1.0),
    ("ancestral", 1.0),
    ("pc", 1.0),
    ("heun", 0.0),
    ("multistep", 0.0),
    ("exponential", 0.0),
    ("bdia", 0.0),
    ("lml", 0.0),
    ("evodiff", 0.0),
    ("renoise", 1.0),
)
WHY: dict[type[LevelSolver], str] = {
    DPS: "its step knows no covariance: the share of the misfit beyond the noise sets how far it goes, for all "
    "directions alike",
    PiGDM: "the denoiser's error is taken as white; one number read off the residual stands for its covariance",
    DiffPIR: "estimates where renoising wants samples; white errors, so that pixels not seen learn of the data by the "
    "next denoising alone: few levels do not suffice, and renoising, which forgets, does better",
    DAPS: "the same white errors; renoising makes each level mend the one before, ddim and ancestral keep its errors",
    ScoreSDE: "the noisy image is put in place of its seen pixels: what is not seen learns of them by the steps that "
    "follow alone",
    DDRM: "what is not measured learns of the data by the next denoising alone; many levels, or fresh noise, do better",
    DDNM: "the same, and its ancestral steps keep what was wrong: time travel, `repeats`, mends that",
    PULA: "Langevin steps too few and too long to be at rest at each level, and unadjusted: more of them, and shorter, "
    "end at the posterior",
    DLG: "Langevin steps of finite length leave noise that is measured, not known; few levels below the chain",
    AFDPS: "with as many particles as samples were asked for, all descend from one; exact for very many, as "
    "tests/solvers/diffusion/sampling/test_afdps.py shows of few pixels",
    DDS: "white errors again, but a whole correction at each level, however short the step: nearer the data, and with "
    "estimates for targets",
    ReSample: "the same; the encoder's residual does nothing where nothing is lost",
    PSLD: "as DPS; where nothing is lost, the gluing term is one more step of the data",
    LATINO: "as DAPS, but for draws of what is measured: there the spread is lost",
    FlowChef: "one gradient step a level, the same for all directions: those that the data say little of lag behind",
    MMPS: "exact with draws; with estimates a sampler without noise errs by its steps, and pc, whose noise wants "
    "draws, loses spread",
}
POINTS: dict[type[Solver], str] = {
    REDDiff: "a few hundred steps of Adam end near the optimum, not at it; the noise of the last levels is left in",
    PnPADMM: "exact where it converges: the denoiser of a Gaussian is the proximal point of its density",
    PnPFBS: "gradient steps of the data are slow; the denoiser's share of the way blurs the prior by sigma",
    RED: "exact for the prior blurred by sigma, to which it converges slowly",
    DPIR: "no fixed point: it stops where its schedule ends",
    DiffusionMBIR: "see the table of a stack: total variation is no Gaussian correlation. Where slices miss different "
    "pixels a strong one halves the error; where all miss the same there is nothing to learn, and it costs a little",
}


@dataclass(frozen=True, eq=False)
class Oracle:
    """Pixels of a smooth Gaussian, some seen with noise, as `count` items that share their data."""

    prior: Prior
    A: Diagonal
    y: Measurement
    mean: Tensor
    deviation: Tensor

    @classmethod
    def draw(cls, seed: int) -> Oracle:
        prior, g = example_prior((SIZE, SIZE)), torch.Generator().manual_seed(seed)
        exact = prior.denoiser
        assert isinstance(exact, GaussianPrior)
        mask = (torch.rand(SIZE, SIZE, generator=g) < SEEN).float()
        truth = exact.sample(1, g)[:, 0]
        data = mask * (truth + NOISE * torch.randn(truth.shape, generator=g))
        seen = mask.flatten().bool()
        mean, covariance = exact.posterior(torch.eye(SIZE**2)[seen], data.flatten()[seen], NOISE)
        square = lambda v: v.reshape(SIZE, SIZE).float()  # noqa: E731
        y = Measurement(data, (mask / NOISE**2)[None])
        return cls(prior, Diagonal(mask), y, square(mean), square(covariance.diag().sqrt()))

    def errors(self, solver: LevelSolver, samples: int) -> tuple[float, float]:
        """Return |mean of the samples - mean| and the samples' deviation, both over the posterior's (rms of pixels)."""
        runs = [self.run(solver, k) for k in range(samples // solver.copies())]
        x = torch.cat(runs)
        scale = self.deviation.square().mean().sqrt()
        centre = (x.mean(0) - self.mean).square().mean().sqrt() / scale
        return float(centre), float(x.var(0).mean().sqrt() / scale)

    def run(self, solver: LevelSolver, seed: int) -> Tensor:
        """Return the trajectories' ends (K, H, W), before they are averaged."""
        with torch.no_grad():
            run = solver.prepare(self.A, self.y, generator=torch.Generator().manual_seed(seed))
            end = reverse(run.guide, run.sampler, run.sigmas, run.draw, run.start).before
        assert end is not None and end.image is not None
        return end.image


def solvers(prior: Prior, samples: int) -> Iterator[tuple[LevelSolver, int]]:
    """Yield the solvers from pure noise down to the prior's least level, and how many samples are asked of each."""
    low, high = prior.denoiser.sigma_min, prior.denoiser.sigma_max
    for name, eta in SAMPLERS:
        law: dict[str, Any] = {"sampler": name, "eta": eta, "start": high, "end": low}
        make: list[Callable[..., GuidedSolver]] = [PiGDM, DPS, PSLD, DiffPIR, DAPS, LATINO, ScoreSDE]
        for cls in make:
            if cls in (DAPS, LATINO) and name in ("pc", "heun", "multistep", "exponential", "bdia", "lml", "evodiff"):
                continue
            if name == "renoise" and cls in (PiGDM, DPS, PSLD, ScoreSDE):
                continue
            yield cls(prior, samples=samples, steps=200 if cls in (DAPS, LATINO) else 100, **law), samples
        yield MMPS(prior, samples=samples, steps=12, draws=name in ("ddim", "ancestral", "renoise"), **law), samples
        if name != "renoise":
            yield FlowChef(prior, samples=samples, steps=100, **law), samples
            yield DDS(prior, steps=100, **law), samples // 8
            yield ReSample(prior, steps=100, antithetic=False, pairs=1, **law), samples // 8
    for sweeps in (1, 4):
        yield PULA(prior, samples=samples, steps=100, sweeps=sweeps, start=5.0, end=0.02), samples
    # One sample of each chain: what a run returns is the mean of its chain's.
    yield DLG(prior, samples=samples, states=1, skip=4, start=high, end=low, products=20), samples
    yield DDRM(prior, samples=samples, steps=200, start=high, end=low), samples
    yield DDRM(prior, samples=samples, steps=200, eta=1.0, start=high, end=low), samples
    yield DDNM(prior, samples=samples, steps=100, repeats=1, start=high, end=low), samples
    yield DDNM(prior, samples=samples, steps=30, repeats=10, start=high, end=low), samples
    yield AFDPS(prior, samples=samples, steps=100, start=high, end=low), samples


def points(prior: Prior) -> Iterator[Solver]:
    """Yield the solvers that return a point."""
    yield REDDiff(prior)
    yield REDDiff(prior, steps=1000, start=None)
    yield REDDiff.paper(prior)
    yield PnPADMM(prior)
    yield PnPFBS(prior)
    yield RED(prior)
    yield RED(prior, iterations=1000, sigma=0.05)
    yield DPIR(prior)
    yield DPIR.paper(prior)


def point_table(oracles: list[Oracle]) -> str:
    """Return the table of solvers without spread, in Markdown."""
    rows = []
    for solver in points(oracles[0].prior):
        solved = [solver(o.A, o.y, generator=torch.Generator().manual_seed(0)) for o in oracles]
        errors = [
            (s.image[0] - o.mean).square().mean().sqrt() / o.deviation.square().mean().sqrt()
            for s, o in zip(solved, oracles, strict=True)
        ]
        calls = solved[0].diagnostics["network_calls"]["denoiser"]
        level = getattr(solver, "sigma", getattr(solver, "end", 0.0))
        rows.append(f"| {solver.name} | {level:g} | {calls} | {torch.stack(errors).mean():.3f} |")
        print(rows[-1], flush=True)
    return "\n".join(["| solver | (last) level | denoiser calls | error of the mean |", "|---|---|---|---|", *rows])


def stack_table(seed: int = 0, runs: int = 4) -> str:
    """Return the table of a stack of correlated slices: the error of the mean against that of all slices together."""
    prior = example_prior((SIZE, SIZE))
    exact, rows = prior.denoiser, []
    assert isinstance(exact, GaussianPrior)
    along = ALONG ** (torch.arange(SLICES)[:, None] - torch.arange(SLICES)).abs().double()
    joint = GaussianPrior(exact.mean.repeat(SLICES), torch.kron(along, exact.covariance), (SLICES, SIZE, SIZE))
    for name, count in (("its own", SLICES), ("the same", 1)):
        g = torch.Generator().manual_seed(seed)
        truth = joint.sample(1, g)[0]
        mask = (torch.rand(count, SIZE, SIZE, generator=g) < SEEN).float().expand(truth.shape).contiguous()
        data, seen = mask * (truth + NOISE * torch.randn(truth.shape, generator=g)), mask.flatten().bool()
        mean, covariance = joint.posterior(torch.eye(len(seen))[seen], data.flatten()[seen], NOISE)
        scale, y = covariance.diag().mean().sqrt(), Measurement(data, mask / NOISE**2)
        law: dict[str, Any] = {"steps": 50, "start": None, "eta": 1.0, "end": exact.sigma_min}
        strong = DiffusionMBIR(prior, **law, rho=1.0, threshold=0.5)
        for solver in (DDS(prior, **law), DiffusionMBIR(prior, **law), strong):
            A, draw = Diagonal(torch.ones(SIZE, SIZE)), torch.Generator()
            x = torch.stack([solver(A, y, generator=draw.manual_seed(k)).image for k in range(runs)]).mean(0)
            error = (x - mean.reshape(x.shape)).square().mean().sqrt() / scale
            label = solver.name + (f", rho {solver.rho:g}" if isinstance(solver, DiffusionMBIR) else "")
            rows.append(f"| {label} | {name} | {error:.2f} |")
            print(rows[-1], flush=True)
    head = f"| {SLICES} slices, neighbours correlated by {ALONG:g} | pixels seen of a slice | error of the mean |"
    return "\n".join([head, "|---|---|---|", *rows])


def lines(cls: type[Solver]) -> int:
    return len(Path(inspect.getfile(cls)).read_text().splitlines())


def table(samples: int, seeds: int) -> str:
    """Return the tables, in Markdown."""
    oracles = [Oracle.draw(seed) for seed in range(seeds)]
    rows: dict[type[LevelSolver], list[str]] = {cls: [] for cls in WHY}
    for solver, count in solvers(oracles[0].prior, samples):
        found = torch.tensor([o.errors(solver, count) for o in oracles]).mean(0)
        law = "its own"
        if isinstance(solver, GuidedSolver):
            law = solver.sampler + (f", η = {solver.eta:g}" if solver.sampler in ("ddim", "renoise") else "")
        if isinstance(solver, PULA):
            law = f"{solver.sweeps} Langevin steps a level"
        if isinstance(solver, DDRM | DDNM):
            law = f"η = {solver.eta:g}" if isinstance(solver, DDRM) else f"{solver.repeats} times each"
        chance = count**-0.5
        cells = [type(solver).name, law, solver.steps, f"{found[0]:.2f}", f"{chance:.2f}", f"{found[1]:.2f}"]
        rows[type(solver)].append("| " + " | ".join(map(str, cells)) + " |")
        print(rows[type(solver)][-1], flush=True)
    head = "| solver | sampler | levels | error of the mean | of it by chance | spread |\n|---|---|---|---|---|---|"
    of = "| solver | lines of its file | why it is not exact |\n|---|---|---|"
    reasons = [f"| {cls.name} | {lines(cls)} | {why} |" for cls, why in (WHY | POINTS).items()]
    parts = [
        head,
        *(row for group in rows.values() for row in group),
        "",
        point_table(oracles),
        "",
        stack_table(),
        "",
        of,
        *reasons,
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--problems", type=int, default=1)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = (
        "# Posterior samplers against an exact posterior\n\n"
        f"Written by `benchmarks/accuracy/gaussian_oracle.py`. A Gaussian of {SIZE} × {SIZE} pixels with a correlation "
        f"of 1.5 pixels, {SEEN:.0%} of them seen with noise of {NOISE:g} (prior: 1), an exact denoiser, from pure "
        f"noise; mean over {options.problems} problem(s), {options.samples} samples of each (DDS and ReSample an "
        "eighth). Errors of the mean are relative to the posterior's deviation, as is the spread: 1 is right.\n\n"
        + table(options.samples, options.problems)
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
