"""D(E(x)) on held-out subjects: the floor under every latent reconstruction."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from medrecon.diagnose.base import BATCH, Case, Finding, OnProgress, sheet
from medrecon.metrics import CT_WINDOWS, psnr

SUMMARY = "round trip D(E(x)): PSNR per subject, bias in tissues, worst slices, seconds"
TISSUES = {"lung": (-950.0, -600.0), "fat": (-150.0, -50.0), "organs": (0.0, 100.0), "bone": (300.0, 1500.0)}
"""HU; a pixel belongs where the mean of its 5 x 5 neighbourhood lies, so that its own noise does not choose."""
WORST = 6


def run(case: Case, generator: torch.Generator, on_progress: OnProgress) -> Finding:
    x, y = case.images, case.decode(case.latents)
    on_progress(0.6)
    scores = window_scores(case, x, y)
    first = next(iter(scores.values()))
    subjects = {s: subject_scores(case, s, scores, x, y) for s in dict.fromkeys(case.subjects)}
    mean = {f"psnr_{n}": sum(v[f"psnr_{n}"] for v in subjects.values()) / len(subjects) for n in scores}
    order = first.argsort()[:WORST]
    worst = [{"slice": case.index[i], "subject": case.subjects[i], "psnr": float(first[i])} for i in order.tolist()]
    values: dict[str, Any] = {
        "mean_over_subjects": mean, "rmse": float((y - x).double().square().mean().sqrt()), "subjects": subjects,
        "worst_slices": worst, "seconds_per_slice": seconds(case),
    }  # fmt: skip
    table = [(f"PSNR, {name.removeprefix('psnr_')}", f"{value:.2f} dB") for name, value in mean.items()]
    table += [("worst slice", f"{worst[0]['psnr']:.2f} dB, {worst[0]['subject']}")]
    if case.prior.units == "HU":
        values["bias_hu"] = biases(x, y)
        text = ", ".join(f"{k} {v['bias']:+.2f}" for k, v in values["bias_hu"].items() if v["pixels"])
        table.append(("bias, HU", text))
    times = values["seconds_per_slice"]
    if times:
        encode, decode = 1e3 * times["encode"], 1e3 * times["decode"]
        table.append(("CPU time a slice", f"encode {encode:.0f} ms, decode {decode:.0f} ms"))
    return Finding(values, table, {"round_trip_worst": picture(case, x[order], y[order])})


def window_scores(case: Case, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """PSNR of every slice: CT in the declared windows, MRI over the 99.9th percentile of the subject's slices."""
    if case.prior.units == "HU":
        return {name: psnr(w.clip(y), w.clip(x), w.width) for name, w in CT_WINDOWS.items() if name in ("full", "soft")}
    return {"full": psnr(y, x, torch.tensor([top(case, subject) for subject in case.subjects]))}


def top(case: Case, subject: str) -> float:
    """99.9th percentile of a subject's magnitudes."""
    values = case.images[[s == subject for s in case.subjects]].flatten()
    return float(values.kthvalue(max(1, round(0.999 * len(values)))).values)


def subject_scores(case: Case, subject: str, scores: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, float]:
    """Mean PSNR over a subject's slices, and its number of slices; for CT the bias in soft tissue."""
    own = torch.tensor([s == subject for s in case.subjects])
    found = {"slices": float(own.sum()), **{f"psnr_{n}": float(v[own].mean()) for n, v in scores.items()}}
    if case.prior.units == "HU":
        soft = tissue(x[own], -160.0, 240.0)
        found["soft_bias_hu"] = float((y[own] - x[own])[soft].double().mean()) if bool(soft.any()) else float("nan")
    return found


def tissue(x: Tensor, low: float, high: float) -> Tensor:
    """Pixels whose 5 x 5 neighbourhood has its mean in [low, high]; (N, H, W) bool."""
    local = avg_pool2d(x[:, None], 5, stride=1, padding=2, count_include_pad=False)[:, 0]
    return (local >= low) & (local <= high)


def biases(x: Tensor, y: Tensor) -> dict[str, dict[str, float]]:
    """Mean of D(E(x)) - x in each tissue, HU."""
    found = {}
    for name, (low, high) in TISSUES.items():
        mask = tissue(x, low, high)
        bias = float((y - x)[mask].double().mean()) if bool(mask.any()) else float("nan")
        found[name] = {"bias": bias, "pixels": float(mask.sum())}
    return found


def seconds(case: Case) -> dict[str, float]:
    """CPU seconds (of all threads) a slice at a batch of 8, the least of three; empty on a GPU."""
    if case.device != "cpu":
        return {}
    x = case.images[:1].expand(BATCH, -1, -1).contiguous()
    z = case.encode(x)
    found = {}
    for name, work, given in (("encode", case.encode, x), ("decode", case.decode, z)):
        spent = []
        for _ in range(3):
            start = time.process_time()
            work(given)
            spent.append((time.process_time() - start) / BATCH)
        found[name] = min(spent)
    return {**found, "threads": float(torch.get_num_threads()), "side": float(x.shape[-1])}


def picture(case: Case, x: Tensor, y: Tensor) -> Tensor:
    """Three rows of the worst slices: original, round trip, difference; its grey scale is a fifth as wide."""
    low, high = (-160.0, 240.0) if case.prior.units == "HU" else (0.0, float(x.max()))
    rows = torch.cat([x, y, (low + high) / 2 + 5 * (y - x)])
    return sheet(rows, low, high, len(x))
