"""Equal tuning: every solver gets the same number of runs on the same validation slices, and a report of the best.

    python benchmarks/design/tune_solvers.py --out runs/tuning.jsonl
    python benchmarks/design/tune_solvers.py --out runs/tuning.jsonl --solvers daps dps
    python benchmarks/design/tune_solvers.py --out runs/tuning.jsonl --report

A run is one setting of a solver on two slices, CT 30 views and MRI 8x. The first is the default, the second the
published settings as far as 100 network calls a slice allow. Each of the others changes the best so far, by mean PSNR,
in the way that comes next in SPACES. Then the default and the best are run on slices of two other subjects, on which
nothing was chosen. A slice ends after `SECONDS` of CPU time, wherever it is then. Solvers take turns, so that at any
time all had about the same number of runs. Every slice is a line of the file, which is resumed after a kill.

TV, where the diffusion solvers start by default, is computed once a slice for all of them; their seconds leave it out.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_cases import prior_of, reference, simulate
from validation_slices import validation_slices

from medrecon.core.volume import Volume
from medrecon.models.prior import Prior
from medrecon.models.store import load_prior
from medrecon.pipeline.choose import make_solver, solver_classes
from medrecon.pipeline.problem import build_problem
from medrecon.quality.evaluate import evaluate
from medrecon.solvers.base import Progress
from medrecon.solvers.diffusion.base import DiffusionSolver
from medrecon.solvers.variational.tv import TV

RUNS = 8
SECONDS = 120.0
"""Of CPU time a slice, at most."""
CHOSEN_ON = (("CT 30 views", 10), ("MRI 8x", 106))
"""A chest and a T2 head."""
CHECKED_ON = (("CT 30 views", 100), ("MRI 8x", 256))
"""An abdomen and a T1 head with contrast agent, of other subjects."""
SIZE = 256

Settings = dict[str, Any]
LOWER: list[Settings] = [{"start": 1.6, "end": 0.1}, {"start": 3.2}]
"""What serves ReSample: to begin at more noise than the TV image needs, and to end above the last level."""
MEAN: Settings = {"samples": 4, "steps": 12}
"""About as many calls as 50 levels of one sample."""
SPACES: dict[str, tuple[Settings, list[Settings]]] = {
    "dds": ({"start": None, "steps": 50}, [*LOWER, {"eta": 0.0}, {"cg_iterations": 15}, {"steps": 50}, {"end": 0.25}]),
    "diffpir": (
        {"start": None, "steps": 50, "eta": 0.1**0.5},
        [*LOWER, {"eta": 0.5}, MEAN, {"weight": 0.3}, {"weight": 3.0}],
    ),
    "daps": (
        {"start": None, "steps": 20, "end": 0.1, "flow_steps": 5},
        [*LOWER, MEAN, {"sampler": "ddim", "eta": 0.5}, {"flow_steps": 2}, {"end": 0.25}],
    ),
    "pigdm": ({"start": None, "steps": 50}, [*LOWER, {"eta": 0.0}, MEAN, {"eta": 0.5}, {"end": 0.25}]),
    "dps": ({"start": None, "steps": 50}, [*LOWER, {"step": 1.9}, {"eta": 0.0}, MEAN, {"step": 4.0}]),
    "dpir": (
        {"iterations": 8, "high": 2 * 49 / 255, "sigma": 2 * 2.55 / 255},
        [
            {"high": 1.6, "sigma": 0.1},
            {"high": 3.2},
            {"weight": 1.0},
            {"weight": 0.08},
            {"iterations": 50},
            {"sigma": 0.25},
        ],
    ),
    "pnp-admm": (
        {"sigma": 0.1},
        [{"sigma": 0.5}, {"sigma": 0.2}, {"sigma": 1.0}, {"iterations": 100}, {"tolerance": 1e-3}, {"iterations": 25}],
    ),
    "flowchef": ({"start": None, "steps": 100}, [*LOWER, {"step": 1.9}, {"eta": 0.5}, {"steps": 25}, MEAN]),
    "latino": ({"start": None}, [*LOWER, {"samples": 4, "steps": 6}, {"prior": "pixel"}, {"steps": 16}, {"eta": 0.5}]),
    "psld": ({"start": None, "steps": 50}, [*LOWER, {"step": 1.9}, {"eta": 0.0}, MEAN, {"gluing": 0.0}]),
    "score-sde": (
        {"start": None, "steps": 50},
        [*LOWER, MEAN, {"process": "vp"}, {"sampler": "ddim", "eta": 0.0}, {"end": 0.25}],
    ),
    "pula": (
        {"start": None, "steps": 25},
        [*LOWER, {"step": 1.0}, {"samples": 4, "steps": 12, "sweeps": 1}, {"sweeps": 1, "steps": 50}, {"step": 0.25}],
    ),
    "red-diff": (
        {"start": None, "decay": False, "weight": 0.25, "end": 0.01, "steps": 100},
        [{"steps": 100, "start": 1.6}, {"rate": 0.03}, {"end": 0.3}, {"start": 3.2}, {"rate": 0.3}, {"end": 0.03}],
    ),
    "red": (
        {"sigma": 0.2, "iterations": 100},
        [
            {"sigma": 0.4, "iterations": 100},
            {"sigma": 0.05},
            {"sigma": 0.8},
            {"sigma": 0.3},
            {"iterations": 50},
            {"sigma": 0.6},
        ],
    ),
    "pnp-fbs": (
        {"step": 1.9, "iterations": 100},
        [
            {"step": 1.9, "sigma": 0.2},
            {"sigma": 0.4},
            {"sigma": 0.8},
            {"sigma": 0.05},
            {"iterations": 100},
            {"sigma": 0.3},
        ],
    ),
    "mmps": (
        {"start": None, "steps": 12, "sampler": "ddim", "draws": False, "products": 3},
        [
            {"steps": 8, "products": 4, "start": 1.6, "end": 0.1},
            {"start": 3.2},
            {"steps": 12, "products": 2},
            {"draws": False, "sampler": "ddim", "eta": 0.0},
            {"steps": 5, "products": 6},
            {"eta": 0.5},
        ],
    ),
    "afdps": (
        {"start": None, "samples": 4},
        [
            {"samples": 4, "start": 1.6, "end": 0.1},
            {"start": 3.2},
            {"gamma": 0.3},
            {"gamma": 3.0},
            {"least": 0.0},
            {"steps": 12},
        ],
    ),
    "tv": ({"strength": 0.2}, [{"strength": s} for s in (0.6, 0.8, 0.3, 0.1, 1.2, 0.5)]),
    "l1-wavelet": (
        {"strength": 0.2},
        [{"strength": 0.6}, {"strength": 0.8}, {"strength": 0.1}, {"levels": 3}, {"spins": 8}, {"strength": 1.2}],
    ),
    "huber": (
        {"strength": 0.2},
        [{"strength": 0.4}, {"knee": 0.003}, {"knee": 0.03}, {"strength": 0.6}, {"knee": 0.1}, {"strength": 0.1}],
    ),
    "cg-sense": (
        {"tikhonov": 1e-3},
        [
            {"tikhonov": 0.1},
            {"tikhonov": 0.03},
            {"discrepancy": 1.0},
            {"tikhonov": 0.3},
            {"tikhonov": 1.0},
            {"iterations": 10},
        ],
    ),
    "resample": ({"prior": "pixel"}, []),
}
"""Of each solver the published settings, or a guess where there are none, and the changes that are tried, in order."""
SLOW = ("red-diff", "red", "pnp-fbs", "mmps", "afdps")
"""Solvers that begin when the others have had their runs."""


@functools.cache
def measured(case: str, number: int) -> tuple[Any, Volume, torch.Tensor]:
    """The problem of a slice, its reference, and its TV reconstruction."""
    modality = case.split()[0].lower()
    volume = validation_slices(modality, [number])
    problem = build_problem(simulate(case, volume, SIZE), "cpu")
    A, y = problem.operator(slice(0, 1)), problem.measurement(slice(0, 1))
    return problem, reference(volume, modality, SIZE), TV()(A, y, generator=torch.Generator().manual_seed(0)).image


def run(solver: str, settings: Settings, case: str, number: int) -> dict[str, Any]:
    """One line of the file."""
    problem, truth, tv = measured(case, number)
    own, cls = dict(settings), solver_classes()[solver]
    modality = case.split()[0].lower()
    name = f"{modality}_pixel" if own.pop("prior", "") == "pixel" else prior_of(solver, modality)
    prior = problem.prior(_prior(name), slice(0, 1)) if cls.needs_prior else None
    A, y = problem.operator(slice(0, 1)), problem.measurement(slice(0, 1))
    began = time.process_time()

    def late(progress: Progress) -> bool:
        return time.process_time() - began > SECONDS

    row: dict[str, Any] = {"solver": solver, "settings": settings, "case": case, "slice": number}
    before = A.calls.images.copy()
    try:
        warm = (
            {"warm": tv} if prior and issubclass(cls, DiffusionSolver) and _starts_at_an_image(cls, prior, own) else {}
        )
        found = make_solver(cls, prior, own)(A, y, generator=torch.Generator().manual_seed(0), on_step=late, **warm)
    except ValueError as error:
        return row | {"psnr_db": 0.0, "error": str(error)[:200]}
    scores = evaluate(Volume(problem.values(found.image), truth.affine, truth.units, truth.modality), truth)
    return row | {
        "psnr_db": scores["psnr_db"],
        "chi2": float(found.chi2.mean()),
        "seconds": time.process_time() - began,
        "network_calls": found.diagnostics.get("network_calls", {}),
        "operator_calls": sum((A.calls.images - before).values()),
        "late": time.process_time() - began > SECONDS,
    }


def _starts_at_an_image(cls: type[DiffusionSolver], prior: Prior, settings: Settings) -> bool:
    """Whether the levels begin below the prior's sigma_max."""
    solver = make_solver(cls, prior, settings)
    assert isinstance(solver, DiffusionSolver)
    return solver.levels()[0] < prior.denoiser.sigma_max


@functools.cache
def _prior(name: str) -> Prior:
    return load_prior(name)


Places = tuple[tuple[str, int], ...]


def slices_of(solver: str, places: Places) -> Places:
    """The slices that a solver's modalities allow."""
    known = solver_classes()[solver].modalities
    return tuple(place for place in places if place[0].split()[0].lower() in known)


def mean(rows: list[dict[str, Any]], modality: str = "") -> float:
    """Mean PSNR over the slices of a modality, or over all."""
    values = [row["psnr_db"] for row in rows if row["case"].startswith(modality)]
    return sum(values) / max(1, len(values))


def _seconds(rows: list[dict[str, Any]]) -> str:
    known = [row["seconds"] for row in rows if "seconds" in row]
    return f"{sum(known) / len(known):.1f}" if known else ""


class Tuning:
    """What was run, in the file, and what is run next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def of(self, solver: str, settings: Settings, places: Places) -> list[dict[str, Any]]:
        """Return the rows of a setting, on these slices."""
        mine = [row for row in self.rows if row["solver"] == solver and row["settings"] == settings]
        return [row for row in mine if (row["case"], row["slice"]) in places]

    def score(self, solver: str, settings: Settings, places: Places) -> float:
        """Mean PSNR over slices, those run now that were not yet."""
        done = {(row["case"], row["slice"]) for row in self.of(solver, settings, places)}
        for place in slices_of(solver, places):
            if place not in done:
                self.rows.append(run(solver, settings, *place))
                with self.path.open("a") as file:
                    file.write(json.dumps(self.rows[-1]) + "\n")
                print(json.dumps(self.rows[-1]), flush=True)
        return mean(self.of(solver, settings, places))

    def climb(self, solver: str, runs: int) -> list[tuple[float, Settings]]:
        """Return the first so many runs, their score and settings: default, published, changes of the best so far."""
        published, changes = SPACES[solver]
        scores: list[tuple[float, Settings]] = [(self.score(solver, {}, CHOSEN_ON), {})]
        for change in (published, *changes):
            best = max(scores, key=lambda pair: pair[0])[1]
            trial = change if len(scores) == 1 else best | change
            if len(scores) < runs and trial not in [settings for _, settings in scores]:
                scores.append((self.score(solver, trial, CHOSEN_ON), trial))
        return scores

    def check(self, solver: str) -> None:
        """Run the default and the best on the other subjects."""
        for settings in ({}, max(self.climb(solver, RUNS), key=lambda pair: pair[0])[1]):
            self.score(solver, settings, CHECKED_ON)

    def finished(self, solver: str) -> list[Settings]:
        """Return the settings run on all slices that choose, the default first."""
        mine = [row["settings"] for row in self.rows if row["solver"] == solver]
        unique = [settings for i, settings in enumerate(mine) if settings not in mine[:i]]
        places = slices_of(solver, CHOSEN_ON)
        return [settings for settings in unique if len(self.of(solver, settings, CHOSEN_ON)) == len(places)]

    def report(self) -> str:
        """Markdown: the default and the best of each solver, for both modalities together and for each."""
        head = ("solver", "runs", "which", "settings", "CT 30 views", "MRI 8×", "CT, other subject", "MRI, other", "s")
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for solver in SPACES:
            tried = self.finished(solver)
            known = solver_classes()[solver].modalities
            labels = {"best": ""} | {f"best {m}": m for m in ("CT", "MRI") if m.lower() in known and len(known) > 1}
            for label, modality in ({"default": None} | labels if tried else {}).items():
                rank = functools.partial(self._rank, solver, modality or "")
                settings = tried[0] if modality is None else max(tried, key=rank)
                rows = self.of(solver, settings, CHOSEN_ON)
                figures = [
                    mean(self.of(solver, settings, p), m) for p in (CHOSEN_ON, CHECKED_ON) for m in ("CT", "MRI")
                ]
                cells = [
                    solver,
                    str(len(tried)),
                    label,
                    ", ".join(f"{k} {v}" for k, v in settings.items()) or "none",
                    *(f"{figure:.2f}" if figure else "" for figure in figures),
                    f"{sum(row.get('seconds', 0.0) for row in rows) / len(rows):.1f}",
                ]
                lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _rank(self, solver: str, modality: str, settings: Settings) -> float:
        return mean(self.of(solver, settings, CHOSEN_ON), modality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; gets what is new")
    parser.add_argument("--solvers", nargs="*", default=list(SPACES))
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tuning = Tuning(options.out)
    fast, slow = ([s for s in options.solvers if (s in SLOW) == late] for late in (False, True))
    for solvers in () if options.report else (fast, slow):
        for runs in range(1, RUNS + 1):
            for solver in solvers:
                tuning.climb(solver, runs)
        for solver in solvers:
            tuning.check(solver)
    print(tuning.report())


if __name__ == "__main__":
    main()
