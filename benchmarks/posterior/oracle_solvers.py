"""What the oracle page holds: solvers, under which samplers, with which settings, and why each is not exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from medrecon.models.prior import Prior
from medrecon.solvers.base import Solver
from medrecon.solvers.diffusion.base import GuidedSolver, LevelSolver
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
            own = {"step": 1.0} if cls is DPS else {}  # the default is for a mean, not for a sample
            yield cls(prior, samples=samples, steps=200 if cls in (DAPS, LATINO) else 100, **law, **own), samples
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
    yield REDDiff(prior, steps=1000, rate=0.1, end=0.1, start=None)
    yield REDDiff.paper(prior)
    yield PnPADMM(prior)
    yield PnPFBS(prior)
    yield RED(prior)
    yield RED(prior, iterations=1000, sigma=0.05)
    yield DPIR(prior)
    yield DPIR.paper(prior)


def stacked(prior: Prior) -> Iterator[DDS]:
    """Yield the solvers of stacks, and one that knows no neighbours."""
    law: dict[str, Any] = {"steps": 50, "start": None, "eta": 1.0, "end": prior.denoiser.sigma_min}
    yield DDS(prior, **law)
    yield DiffusionMBIR(prior, **law)
    yield DiffusionMBIR(prior, **law, rho=1.0, threshold=0.5)


def law_of(solver: LevelSolver) -> str:
    """Return how a solver goes down: its sampler, or what stands for one."""
    if isinstance(solver, GuidedSolver):
        return solver.sampler + (f", η = {solver.eta:g}" if solver.sampler in ("ddim", "renoise") else "")
    if isinstance(solver, PULA):
        return f"{solver.sweeps} Langevin steps a level"
    if isinstance(solver, DDRM):
        return f"η = {solver.eta:g}"
    return f"{solver.repeats} times each" if isinstance(solver, DDNM) else "its own"
