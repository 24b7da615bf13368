"""Does the prior repeat its training slices? Nearest training neighbour of every sample, beside that of real slices.

Slices are compared at 64 x 64 in the network's range of values, mean off and at unit norm, in the eight orientations
that training uses. The control are the held-out slices: a sample nearer to the training set than all but 1 % of the
real slices it never saw is flagged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medrecon.diagnose.base import Case, Finding, OnShare, sheet
from medrecon.training.images.slices import Slices

SUMMARY = "memorisation: nearest training slice of every sample, beside that of held-out slices"
SIDE = 64


def run(case: Case, generator: torch.Generator, on_progress: OnShare) -> Finding:
    if case.training is None:
        return Finding({"skipped": "no training slices"}, [("memorisation", "not measured: no training slices given")])
    training = torch.cat([features(case, part) for part in whole(case.training)])
    on_progress(0.3)
    drawn = case.decode(case.samples)
    samples, which = nearest(features(case, drawn), training)
    control = torch.cat([nearest(features(case, x), training)[0] for x in whole(case.held_out)])
    bound = float(torch.quantile(control, 0.99))
    flagged = (samples > bound).nonzero()[:, 0].tolist()
    values = {
        "training_slices": len(training),
        "control_slices": len(control),
        "bound": bound,
        "flagged": flagged,
        "samples": samples.tolist(),
        "neighbours": which.tolist(),
        "samples_median": float(samples.median()),
        "control_median": float(control.median()),
    }
    table = [
        (
            "correlation with the nearest training slice",
            f"median {values['samples_median']:.3f}, largest {float(samples.max()):.3f}",
        ),
        ("the same of held-out slices", f"median {values['control_median']:.3f}, 99th percentile {bound:.3f}"),
        ("flagged samples", f"{len(flagged)} of {len(samples)}"),
    ]
    first = samples.argsort(descending=True)[:6]
    return Finding(values, table, {"memorisation": pairs(case, drawn[first], which[first])})


def whole(slices: Slices) -> Iterator[Tensor]:
    """All slices in physical values, in parts."""
    for start in range(0, len(slices.subjects), 64):
        yield slices.values(slice(start, start + 64))


def features(case: Case, x: Tensor) -> Tensor:
    """(N, 4096): low-passed, mean off, unit norm."""
    u = case.prior.values.forward(case.clip(x))[:, None]
    small = interpolate(u, (SIDE, SIDE), mode="bilinear", antialias=True).flatten(1)
    small = small - small.mean(1, keepdim=True)
    return small / small.norm(dim=1, keepdim=True).clamp_min(1e-9)


def nearest(x: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Largest correlation of every x (N, 4096) with a training slice, over flips and quarter turns, and whose it is."""
    best, which = torch.full((len(x),), -torch.inf), torch.zeros(len(x), dtype=torch.long)
    image = x.view(-1, SIDE, SIDE)
    for flipped in (image, image.flip(-1)):
        for turns in range(4):
            found, at = (torch.rot90(flipped, turns, (1, 2)).flatten(1) @ training.T).max(1)
            which = torch.where(found > best, at, which)
            best = torch.maximum(found, best)
    return best, which


def pairs(case: Case, drawn: Tensor, which: Tensor) -> Tensor:
    """The samples nearest to the training set, above their neighbours."""
    assert case.training is not None
    real = case.training.values(which)
    low, high = (-1000.0, 1000.0) if case.prior.units == "HU" else (0.0, float(real.amax()))
    return sheet(torch.cat([drawn, real]), low, high, len(drawn))
