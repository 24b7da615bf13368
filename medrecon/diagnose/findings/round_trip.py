"""D(E(x)) on held-out subjects: the floor under every latent reconstruction."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from medrecon.diagnose.base import BATCH, Case, Finding, OnShare, sheet
from medrecon.quality.metrics import CT_WINDOWS, psnr

SUMMARY = "round trip D(E(x)): PSNR per subject, bias in tissues, worst slices, seconds"
TISSUES = {"lung": (-950.0, -600.0), "fat": (-150.0, -50.0), "organs": (0.0, 100.0), "bone": (300.0, 1500.0)}
"""HU; a pixel belongs where the mean of its 5 x 5 neighbourhood lies, so that its own noise does not choose."""
WORST = 6


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    x, y = case.images, case.decode(case.latents)
    on_progress(0.6)
    scores = window_scores(case, x, y)
    first = next(iter(scores.values()))
    subjects = {s: subject_scores(case, s, scores, x, y) for s in dict.fromkeys(case.subjects)}
    mean = {f"psnr_{n}": sum(v[f"psnr_{n}"] for v in subjects.values()) / len(subjects) for n in scores}
    order = first.argsort()[:WORST]
    worst = [
        {
            "slice": case.index[i],
            "of_subject": case.place(i),
            "subject": case.subjects[i],
            **{"psnr" if v is first else f"psnr_{n}": float(v[i]) for n, v in scores.items()},
        }
        for i in order.tolist()
    ]
    values: dict[str, Any] = {
        "mean_over_subjects": mean,
        "rmse": float((y - x).double().square().mean().sqrt()),
        "subjects": subjects,
        "worst_slices": worst,
        "seconds_per_slice": seconds(case),
    }
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
    pictures = {"round_trip_worst": picture(case, x[order], y[order])}
    return Finding(values, table, pictures, details(subjects, worst))


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
    """Mean PSNR over a subject's slices, how many, the worst one; for CT the bias in soft tissue."""
    own = torch.tensor([s == subject for s in case.subjects])
    first = next(iter(scores.values()))
    lowest = min(own.nonzero()[:, 0].tolist(), key=lambda i: float(first[i]))
    found = {
        "slices": float(own.sum()),
        **{f"psnr_{n}": float(v[own].mean()) for n, v in scores.items()},
        "worst_slice": float(case.place(lowest)),
        "worst_psnr": float(first[lowest]),
    }
    if case.prior.units == "HU":
        soft = tissue(x[own], -160.0, 240.0)
        found["soft_bias_hu"] = float((y[own] - x[own])[soft].double().mean()) if bool(soft.any()) else float("nan")
    return found


def details(subjects: dict[str, dict[str, float]], worst: list[dict[str, Any]]) -> dict[str, list[tuple[str, ...]]]:
    """Every subject, the worst first, and the slices of the picture."""
    names = [key for key in next(iter(subjects.values())) if key.startswith("psnr_")]
    windows = tuple(f"PSNR {name.removeprefix('psnr_')}, dB" for name in names)
    biased = any("soft_bias_hu" in v for v in subjects.values())
    rows = [("subject", "slices", *windows, *(("soft-tissue bias, HU",) * biased), "worst slice", "its PSNR, dB")]
    for subject, v in sorted(subjects.items(), key=lambda item: item[1][names[0]]):
        bias = (f"{v['soft_bias_hu']:+.2f}",) if biased else ()
        rows.append(
            (
                subject,
                f"{v['slices']:.0f}",
                *(f"{v[name]:.2f}" for name in names),
                *bias,
                f"{v['worst_slice']:.0f}",
                f"{v['worst_psnr']:.2f}",
            )
        )
    shown = [("column", "subject", "slice", *windows)]
    for i, w in enumerate(worst):
        psnrs = (w["psnr"], *(w[name] for name in names[1:]))
        shown.append((f"{i + 1}", w["subject"], f"{w['of_subject']}", *(f"{value:.2f}" for value in psnrs)))
    return {
        "Round trip by subject (slices counted from 0 within the subject)": rows,
        "Worst slices: the columns of diagnose_round_trip_worst.png": shown,
    }


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
