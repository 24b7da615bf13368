"""Unconditional samples: a sheet to look at, and their pixels beside those of real slices.

A classifier tries to tell them from real slices; beside it, how well it tells training slices from held-out ones, which
are both real and differ by their subjects alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medrecon.diagnose.base import Case, Finding, OnShare, sheet, spread
from medrecon.diagnose.radial import radial_power, rings
from medrecon.diagnose.two_sample import SIDE, Accuracy, told_apart

SUMMARY = "unconditional samples: a sheet beside one of real slices, a classifier, histogram and spectrum"
TRAINING = 256


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    drawn = case.decode(case.samples)
    on_progress(0.9)
    kept = case.clip(drawn)
    real, bins = case.images, rings(drawn)
    control = case.training_images(TRAINING) if case.training is not None else None
    ratio = radial_power(kept, bins) / radial_power(real, bins)
    values: dict[str, Any] = {
        "count": len(drawn),
        "steps": case.settings.steps,
        "churn": case.settings.churn,
        "guidance": case.settings.guidance,
        "seed": case.settings.seed,
        "sampler": "Heun, Karras levels",
        "finite": bool(torch.isfinite(drawn).all()),
        "latent_std": float(case.samples.std()),
        "mean": float(kept.mean()),
        "std": float(kept.std()),
        "real_mean": float(real.mean()),
        "real_std": float(real.std()),
        "histogram_distance": histogram_distance(kept, real),
        "spectrum_ratio": ratio.tolist(),
    }
    table = [
        ("samples", f"{len(drawn)}, deviation of their latents {values['latent_std']:.2f}"),
        (
            "mean, deviation of values",
            f"{values['mean']:.3g}, {values['std']:.3g} (held-out {values['real_mean']:.3g}, {values['real_std']:.3g})",
        ),
        ("histogram distance to held-out", f"{values['histogram_distance']:.3g} {case.prior.units}"),
        ("spectrum over held-out, low to high", ", ".join(f"{v:.2f}" for v in ratio.tolist())),
    ]
    if control is not None:
        values["control_histogram_distance"] = histogram_distance(control, real)
        values["control_spectrum_ratio"] = (radial_power(control, bins) / radial_power(real, bins)).tolist()
        table.insert(
            3, ("the same, training to held-out", f"{values['control_histogram_distance']:.3g} {case.prior.units}")
        )
    told = {"samples from held-out": told_apart(kept, real)}
    if control is not None:
        told["samples from training"] = told_apart(kept, control)
        told["training from held-out"] = told_apart(control, real)
    values["told_apart"] = {k: {"accuracy": v.value, "standard_error": v.error} if v else None for k, v in told.items()}
    table += [(f"told apart at {SIDE} x {SIDE}, {name}", words(accuracy)) for name, accuracy in told.items()]
    shown = real[spread(list(range(len(real))), len(drawn))]
    return Finding(
        values,
        table,
        {
            **{f"samples{window}": picture for window, picture in sheets(case, drawn).items()},
            **{f"held_out_data{window}": picture for window, picture in sheets(case, shown).items()},
        },
    )


def words(accuracy: Accuracy | None) -> str:
    return f"{accuracy} of them right (0.50: not at all)" if accuracy else "not measured: too few"


def histogram_distance(a: Tensor, b: Tensor) -> float:
    """Wasserstein-1 distance of the values of two sets of images, in their units: mean |difference of quantiles|."""
    at = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    first, second = (x.flatten().double().sort().values for x in (a, b))
    return float((first[(at * len(first)).long()] - second[(at * len(second)).long()]).abs().mean())


def sheets(case: Case, images: Tensor) -> dict[str, Tensor]:
    """One sheet a display window: soft tissue and lung to bone for CT, 99.5 % of the real magnitudes for MRI."""
    columns = 4 if len(images) > 3 else len(images)
    if case.prior.units == "HU":
        return {"_soft": sheet(images, -160.0, 240.0, columns), "_wide": sheet(images, -1000.0, 1000.0, columns)}
    values = case.images.flatten()
    top = float(values.kthvalue(max(1, round(0.995 * len(values)))).values)
    return {"": sheet(images, 0.0, top, columns)}
