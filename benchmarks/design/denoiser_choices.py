"""What pays in training the latent denoiser on few data: one change at a time against one baseline, short CPU runs.

Every run takes the same number of steps (two experts: half of them each, so about equal time) from the same seed; the
score is the squared error over that of the stationary Gaussian, per noise level, on subjects never trained on.

    OMP_NUM_THREADS=1 python benchmarks/design/denoiser_choices.py --out choices.json --cache choices_cache
    python benchmarks/design/denoiser_choices.py --out choices.json --table
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpus import CORPUS

from medrecon.models.exact.wiener import Wiener
from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.networks.wiener_unet import Parametrisation, skip_and_scale
from medrecon.models.store import load_prior
from medrecon.training.autoencoder import AutoencoderConfig, AutoencoderTask, Window
from medrecon.training.diffusion import DiffusionConfig, DiffusionTask, ExpertTraining, Weighting, weights
from medrecon.training.images.augment import Augment, crops
from medrecon.training.images.latents import encode_slices, fingerprint, statistics, stored
from medrecon.training.images.slices import Slices, read_sheets
from medrecon.training.loop.config import LoopConfig, Optimizer
from medrecon.training.loop.steps import fit

LEVELS = (0.06, 0.25, 1.0, 4.0, 16.0)
MOVED: dict[str, Any] = {"plain": 0.4, "zoom": 1.25, "rotate": 10, "shift": 0.05}
AUGMENTS = {
    "none": Augment(mirror=0, turns=0, plain=1),
    "turned": Augment(plain=1),
    "moved": Augment(**MOVED),
    "deform 0.02": Augment(**MOVED, deform=0.02),
    "deform 0.04": Augment(**MOVED, deform=0.04),
}
WINDOWS = {"full": Window(low=-1024, high=3071, target_db=44), "soft": Window(low=-160, high=240, target_db=35)}


def short(steps: int, seed: int, optimizer: Optimizer = "adamw") -> LoopConfig:
    return LoopConfig(
        steps=steps, optimizer=optimizer, lr=1e-3, warmup=min(50, steps // 4), validate_every=steps, seed=seed
    )


@dataclass(frozen=True)
class Run:
    """One row of a table; everything else as in the baseline."""

    table: str
    label: str
    expert: dict[str, Any] = field(default_factory=dict)
    experts: tuple[dict[str, Any], ...] = ({},)
    data: str = "all"
    augment: str = "turned"
    positions: bool = True
    optimizer: Optimizer = "adamw"
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.table}, {self.label}, seed {self.seed}"

    def training(self, steps: int) -> dict[str, ExpertTraining]:
        loop = short(steps // len(self.experts), self.seed, self.optimizer)
        base = {"channels": (32, 64, 96), "crop": 32, "batch": 8, "loop": loop, **self.expert}
        return {f"e{i}": ExpertTraining(**{**base, **e}) for i, e in enumerate(self.experts)}


def runs() -> list[Run]:
    two = ({"up_to": 1.5}, {"fold": 2, "crop": 64})
    few = [Run("few", name, data="few", augment=name) for name in AUGMENTS]
    every = [Run("all", name, augment=name) for name in AUGMENTS if name != "turned"]
    return [
        Run("baseline", "baseline"),
        Run("optimiser", "muon", optimizer="muon"),
        Run("optimiser", "muon", optimizer="muon", seed=1),
        Run("parametrisation", "v", {"parametrisation": "v"}),
        Run("baseline", "baseline", seed=1),
        Run("experts", "two: fine to 1.5, coarse folded 2 x 2", experts=two),
        Run("weighting", "edm", {"weighting": "edm"}),
        Run("crops", "whole latents, 64 x 64, batch 2", {"crop": 64, "batch": 2}),
        few[1],
        few[0],
        Run("parametrisation", "x0", {"parametrisation": "x0"}),
        Run("baseline", "baseline", seed=2),
        few[3],
        every[0],
        Run("parametrisation", "epsilon", {"parametrisation": "epsilon"}),
        Run("crops", "without positions", positions=False),
        Run("weighting", "min-snr", {"weighting": "min-snr"}),
        few[2],
        few[4],
        Run("few", "turned", data="few", seed=1),
        *every[1:],
    ]


def subset(data: str) -> Slices:
    """240 slices of the 65 training subjects, up to two slices of each of 20, or of every validation subject."""
    split = "val" if data == "val" else "train"
    slices = read_sheets(CORPUS / split / "ct_256", 1.0, -1024.0)
    generator = torch.Generator().manual_seed(0)
    index = torch.multinomial(slices.weights, len(slices.subjects), generator=generator).tolist()
    if data == "all":
        index = index[:240]
    else:
        names = sorted({slices.subjects[i] for i in index})
        order = torch.randperm(len(names), generator=generator).tolist()
        names = [names[i] for i in order][: 20 if data == "few" else None]
        index = [i for name in names for i in [j for j in index if slices.subjects[j] == name][:2]]
    return Slices(slices.data[index], tuple(slices.subjects[i] for i in index), slices.slope, slices.intercept)


class Latents:
    """Latents of a set of slices under an augmentation, encoded once by the shipped autoencoder."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.prior = cache, load_prior("ct")
        assert isinstance(self.prior.autoencoder, KLAutoencoder)
        self.autoencoder = self.prior.autoencoder

    def __call__(self, data: str, augment: str) -> Tensor:
        def make() -> dict[str, Tensor]:
            g = torch.Generator().manual_seed(0)
            views = 1 if augment == "none" else 3 if data == "few" else 1
            size = slices.data.shape[-1]
            one = [
                Slices(slices.data[i : i + 1], ("",), slices.slope, slices.intercept)
                for i in range(len(slices.subjects))
            ]
            x = torch.cat([crops(s, size, views, AUGMENTS[augment], g) for s in one])
            return {"z": encode_slices(self.autoencoder, self.prior.values, x, "cpu", True)}

        slices = subset(data)
        file = self.cache / f"{data}_{augment.replace(' ', '')}.safetensors"
        return stored(file, make, fingerprint(self.autoencoder, slices, augment))["z"]


def train(run: Run, steps: int, latents: Latents, folder: Path) -> dict[str, Any]:
    """Held-out and training ratios of squared errors by noise level, and CPU seconds."""
    everything, held_out = latents("all", "none"), latents("val", "none")
    mean, std = statistics(everything)  # one Gaussian and one normalisation for all runs
    config = DiffusionConfig(experts=run.training(steps))
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        denoiser = config.denoiser(everything.shape[1], everything.shape[-1])
    denoiser.wiener.fit((everything.float() - mean) / std)
    seen = latents(run.data, "none")
    result: dict[str, Any] = {"held_out": {}, "trained": {}, "cpu_s": 0.0}
    low = 0.0
    for name, expert in config.experts.items():
        task = DiffusionTask(denoiser, name, expert, latents(run.data, run.augment), held_out, mean, std)
        module = denoiser.experts[name]
        if not run.positions:
            module.register_forward_pre_hook(lambda _, a: (a[0], a[1], torch.zeros_like(a[2]), a[3]))
        begin = time.process_time()
        module = fit(module, task.loss, lambda m: {}, expert.loop, folder / run.name.replace(" ", "_") / name, silent)
        result["cpu_s"] += time.process_time() - begin
        mine = [s for s in LEVELS if low < s <= expert.up_to]
        for part, z in (("held_out", held_out), ("trained", seen[:: max(1, len(seen) // 12)][:12])):
            task.held_out = z
            result[part] |= {f"{s:g}": ours / gauss for s, (ours, gauss) in task.errors(module, mine).items()}
        low = expert.up_to
    return result


@torch.no_grad()
def before(latents: Latents) -> dict[str, Any]:
    """Before training, on held-out latents: ratio of every parametrisation; loss of the Gaussian by weighting."""
    everything, held_out = latents("all", "none"), latents("val", "none")
    mean, std = statistics(everything)
    wiener = Wiener(everything.shape[1], everything.shape[-1])
    wiener.fit((everything.float() - mean) / std)
    z0, g = (held_out.float() - mean) / std, torch.Generator().manual_seed(0)
    ratios: dict[str, dict[str, float]] = {kind: {} for kind in get_args(Parametrisation)}
    losses: dict[Weighting, dict[str, float]] = {kind: {} for kind in get_args(Weighting)}
    for s in LEVELS:
        sigma = torch.full((len(z0),), s)
        z = z0 + s * torch.randn(z0.shape, generator=g)
        estimate, error = wiener(z, sigma)
        gauss = (estimate - z0).square().mean()
        for kind in get_args(Parametrisation):
            skip = skip_and_scale(kind, z, sigma.view(-1, 1, 1, 1), estimate, error)[0]
            ratios[kind][f"{s:g}"] = float((skip - z0).square().mean() / gauss)
        for weighting in losses:
            losses[weighting][f"{s:g}"] = float((weights(weighting, sigma[:1], error[:1].flatten()) * gauss).item())
    return {"ratios": ratios, "losses": losses}


@torch.no_grad()
def gaussians(latents: Latents) -> dict[str, Any]:
    """Held-out error of the Gaussian fitted to few subjects' latents by augmentation, over that of all subjects'."""
    everything, held_out = latents("all", "none"), latents("val", "none")
    mean, std = statistics(everything)
    z0 = (held_out.float() - mean) / std

    def errors(data: str, augment: str) -> list[float]:
        g, wiener = torch.Generator().manual_seed(0), Wiener(everything.shape[1], everything.shape[-1])
        wiener.fit((latents(data, augment).float() - mean) / std)
        noisy = ((s, z0 + s * torch.randn(z0.shape, generator=g)) for s in LEVELS)
        return [float((wiener(z, torch.full((len(z),), s))[0] - z0).square().mean()) for s, z in noisy]

    whole = errors("all", "none")
    ratios = {
        name: {f"{s:g}": e / w for s, e, w in zip(LEVELS, errors("few", name), whole, strict=True)} for name in AUGMENTS
    }
    return {"Gaussian of 20 subjects over that of all": ratios}


def autoencoder(deform: float, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Round-trip PSNR on held-out subjects of a small autoencoder trained from its principal components."""
    config = AutoencoderConfig(channels=(32, 64), latent_channels=8, crop=64, batch=8, augment=Augment(deform=deform))
    values, slices = load_prior("ct").values, subset("few")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = KLAutoencoder(config.channels, config.latent_channels, config.res_blocks, config.patch)
    module.fit(values.forward(crops(slices, 64, 512, AUGMENTS["turned"], torch.Generator().manual_seed(0))))
    task = AutoencoderTask(config, values, WINDOWS, slices, subset("val"), "cpu", True)
    start = task.validate(module)
    begin = time.process_time()
    home = folder / f"autoencoder_{deform:g}_{seed}"
    average = fit(module, task.loss, lambda m: {}, short(steps, seed), home, silent)
    cpu, scores = time.process_time() - begin, task.validate(average)
    task.held_out = slices
    return {"start": start, "held_out": scores, "trained": task.validate(average), "cpu_s": cpu}


def silent(*_: object) -> None:
    pass


def geometric(ratios: dict[str, float]) -> float:
    return math.exp(sum(map(math.log, ratios.values())) / len(ratios))


def spread(results: dict[str, Any]) -> tuple[float, int]:
    """Pooled standard deviation of log(geometric mean) over the runs that differ by their seed, degrees of freedom."""
    groups: dict[str, list[float]] = {}
    for name, r in results.items():
        if "geometric" in r:
            groups.setdefault(name.rpartition(",")[0], []).append(math.log(r["geometric"]))
    square, freedom = 0.0, 0
    for logs in groups.values():
        centre = sum(logs) / len(logs)
        square, freedom = square + sum((v - centre) ** 2 for v in logs), freedom + len(logs) - 1
    return math.sqrt(square / max(1, freedom)), freedom


def table(results: dict[str, Any]) -> None:
    """Markdown: one table, rows in the order of `runs`; bold where the difference to its reference is significant."""
    from scipy.stats import t

    deviation, freedom = spread(results)
    least = float(t.ppf(0.975, freedom)) * deviation * math.sqrt(2) if freedom else math.inf
    print(
        f"Run-to-run deviation {100 * deviation:.1f} % ({freedom} degrees of freedom); "
        f"two runs differ at 95 % above {100 * math.expm1(least):.1f} %\n"
    )
    print("| change | " + " | ".join(f"σ = {s:g}" for s in LEVELS) + " | geometric mean | change | trained | CPU s |")
    print("|---" * (len(LEVELS) + 5) + "|")
    for run in sorted(runs(), key=lambda r: list(dict.fromkeys(q.table for q in runs())).index(r.table)):
        if run.name not in results:
            continue
        r = results[run.name]
        reference = results.get("few, turned, seed 0" if run.table == "few" else "baseline, baseline, seed 0", r)
        change = math.log(r["geometric"] / reference["geometric"])
        shown = f"{100 * math.expm1(change):+.1f} %"
        cells = [f"{r['held_out'][f'{s:g}']:.3f}" for s in LEVELS]
        cells += [f"{r['geometric']:.3f}", f"**{shown}**" if abs(change) > least else shown]
        cells += [f"{geometric(r['trained']):.3f}", f"{r['cpu_s']:.0f}"]
        print(f"| {run.name} | " + " | ".join(cells) + " |")
    for what, rows in (results.get("before", {}) | results.get("gaussians", {})).items():
        print(f"\n| no training: {what} | " + " | ".join(f"σ = {s:g}" for s in LEVELS) + " |")
        print("|---" * (len(LEVELS) + 1) + "|")
        for kind, row in rows.items():
            print(f"| {kind} | " + " | ".join(f"{row[f'{s:g}']:.4g}" for s in LEVELS) + " |")
    for name, r in results.items():
        if name.startswith("autoencoder"):
            parts = "; ".join(
                f"{k} " + ", ".join(f"{w} {v:.2f} dB" for w, v in r[k].items())
                for k in ("start", "held_out", "trained")
            )
            print(f"\n{name}: {parts}; {r['cpu_s']:.0f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("choices.json"))
    parser.add_argument("--cache", type=Path, default=Path("choices_cache"))
    parser.add_argument("--table", action="store_true", help="print the tables of --out and end")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps a run; an --out and --cache each")
    parser.add_argument("--only", action="append", default=[], help="start of the names of the runs to make")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.table:
        table(results)
        return
    latents = Latents(options.cache)
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "before": lambda: before(latents),
        "gaussians": lambda: gaussians(latents),
    }
    jobs |= {
        run.name: lambda run=run: train(run, options.steps, latents, options.cache / "runs")  # type: ignore[misc]
        for run in runs()
    }
    jobs |= {
        f"autoencoder few, deform {d:g}, seed {seed}": lambda d=d, seed=seed: autoencoder(
            d, seed, options.steps, options.cache / "runs"
        )  # type: ignore[misc]
        for seed in (0, 1, 2)
        for d in (0.0, 0.02)
    }
    for name, job in jobs.items():
        if name not in results and name.startswith(tuple(options.only) or ""):
            result = job()
            if "trained" in result and "start" not in result:
                result["geometric"] = geometric(result["held_out"])
            results[name] = result
            partial = options.out.with_suffix(".partial")
            partial.write_text(json.dumps(results, indent=1))
            partial.replace(options.out)
            print(name, json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
