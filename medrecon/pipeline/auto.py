"""Which solver for which scan: the table that the results give, and the row that a scan falls into."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.geometry import Rays, Trajectory, VolumeGrid
from medrecon.pipeline.choose import is_partial, is_single
from medrecon.pipeline.prepare import trained_side

AUTO = "auto"
"""What to ask for instead of a solver's name."""
SPARSE = 0.5
"""Views over rows of the image, below which they are few: the results have 0.12 and 0.23 on one side, 1.4 on the
other."""
FAST = 6.0
"""Acceleration of lines from which the latent prior is the better one: the results have 2 and 4 on one side, 8 on the
other."""
WHOLE = 1.25
"""Acceleration up to which nearly everything is measured."""
STRIDE, STRAIGHT = 8, 1e-3
"""Samples of a stretch of a trajectory, and sine of the angle to the next one below which it is straight."""
UNNOTICED, WIDEST = math.radians(10), math.radians(60)
"""Gaps between views: none so small is a limited angle, and every larger one is."""
CAUTION = "a learned solver can show structures that are not there"
UNMEASURED = "no figure yet"


@dataclass(frozen=True)
class Row:
    """One kind of scan.

    Attributes:
        case: what it is, for people.
        solver: what to take.
        prior: the shipped prior that it is measured with; None: it has none.
        classical: the best solver without a prior.
        figures: what the results say (docs/results.md, of test subjects; PSNR).
    """

    case: str
    solver: str
    prior: str | None
    classical: str
    figures: str


TABLE = {
    "ct volume": Row("CT, cone beam or helix in three dimensions", "tv", None, "tv", UNMEASURED),
    "ct foreign": Row("CT in 1/mm, without the attenuation of water", "tv", None, "tv", UNMEASURED),
    "ct limited": Row(
        "CT, views over less than half a turn",
        "resample",
        "ct_pixel",
        "huber",
        "90 degrees: 1.1 dB above `huber`, 0.7 dB at least",
    ),
    "ct sparse": Row(
        "CT, fewer views than half the rows of the image",
        "resample",
        "ct",
        "huber",
        "20 views: 3.4 dB above `huber`; 30 views: 2.6 dB; 60 views: 1.0 dB above `tv`, 0.7 dB below on one of three",
    ),
    "ct dense": Row(
        "CT, more views, any dose",
        "huber",
        None,
        "huber",
        "360 views at low dose: `resample` 0.4 dB above `huber`, and 0.9 dB below on one of three subjects",
    ),
    "mri single": Row("MRI of one coil", "tv", None, "tv", UNMEASURED),
    "mri partial": Row(
        "MRI, partial Fourier up to 2×", "pocs", None, "pocs", "5/8: `resample` with `mri_pixel` 0.6 dB above `pocs`"
    ),
    "mri whole": Row("MRI on a grid, nearly all of it measured", "cg-sense", None, "cg-sense", UNMEASURED),
    "mri lines": Row(
        "MRI, lines, up to 6×", "resample", "mri_pixel", "tv", "2×: 2.7 dB above `tv`; 4×: 3.1 dB above `tv`"
    ),
    "mri few lines": Row(
        "MRI, lines, above 6×",
        "resample",
        "mri",
        "tv",
        "8×: 3.6 dB above `tv`, 0.5 dB at least; 12×: 3.1 dB, 0.4 dB at least",
    ),
    "mri two axes": Row(
        "MRI on a grid, undersampled along both axes",
        "resample",
        "mri_pixel",
        "l1-wavelet",
        "Poisson disc, 6×: 1.5 dB above `l1-wavelet`",
    ),
    "mri spokes": Row(
        "MRI, spokes",
        "resample",
        "mri_pixel",
        "tv",
        "34 spokes: 1.6 to 2.0 dB above `tv` on three heads; on a hip that none explains (χ²/m 12) `cg-sense` leads",
    ),
    "mri curves": Row(
        "MRI, spirals and other curves", "tv", None, "tv", "6 spirals: `resample` with `mri_pixel` 0.4 dB above `tv`"
    ),
}
"""The solver of the highest mean PSNR; but one without a prior where that gains less than 1 dB, twice what test data
may have added to ReSample's figures. The README shows it (tests/project/test_readme.py)."""


@dataclass(frozen=True)
class Choice:
    """The solver for a scan, the prior it takes, and why, in a sentence for people."""

    solver: str
    prior: str | None
    why: str


def choose(scan: Scan) -> Choice:
    """Choose a solver by the kind of scan; where the prior does not know images of that size, one without a prior."""
    row = TABLE[kind(scan)]
    why = f"{row.case}: {row.figures.replace('`', '')}"
    if row.prior is None:
        return Choice(row.solver, None, why)
    from medrecon.models.store import load_prior

    side, trained = max(scan.image_shape), trained_side(load_prior(row.prior))
    if trained and not trained / 2 <= side <= 2 * trained:
        return Choice(
            row.classical,
            None,
            f"{row.case}; {row.solver} is not taken, its prior knows images of about {trained} pixels a side and these "
            f"have {side}",
        )
    return Choice(row.solver, row.prior, f"{why}; {CAUTION}, {row.classical} has no prior")


def kind(scan: Scan) -> str:
    """Return the key of the row of `TABLE` that a scan falls into."""
    if scan.modality == "ct":
        return _ct(scan)
    if is_single(scan):
        return "mri single"
    if isinstance(scan.geometry, Trajectory):
        return "mri spokes" if straight(scan.geometry.samples) else "mri curves"
    mask = scan.sampled if scan.sampled.ndim == 2 else scan.sampled.any(0)
    acceleration = mask.numel() / max(1, int(mask.sum()))
    if is_partial(scan) and acceleration <= 2:
        return "mri partial"
    if acceleration < WHOLE:
        return "mri whole"
    if not bool((mask == mask.any(1)[:, None] & mask.any(0)).all()):
        return "mri two axes"
    return "mri lines" if acceleration <= FAST else "mri few lines"


def _ct(scan: Scan) -> str:
    if isinstance(scan.grid, VolumeGrid):
        return "ct volume"
    if scan.units != "HU" and scan.mu_water is None:
        return "ct foreign"
    if not half_turn(scan.rays):
        return "ct limited"
    return "ct sparse" if len(scan.rays.angles) < SPARSE * scan.image_shape[-2] else "ct dense"


def half_turn(rays: Rays) -> bool:
    """Tell whether the views leave no gap of the half circle: seen from both sides, angles are alike up to pi."""
    folded = torch.tensor(rays.angles, dtype=torch.float64).remainder(math.pi).sort().values
    gaps = torch.cat([folded.diff(), folded[:1] + math.pi - folded[-1:]])
    usual = float(gaps[gaps > 1e-6].median())
    return float(gaps.max()) <= max(UNNOTICED, min(3 * usual, WIDEST))


def straight(samples: Tensor) -> bool:
    """Tell whether a trajectory (S, 2) is made of straight lines: most stretches go on as they came."""
    reach = samples.double()[STRIDE:] - samples.double()[:-STRIDE]
    a, b = reach[:-STRIDE], reach[STRIDE:]
    cross = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    sizes = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(torch.finfo(torch.float64).tiny)
    return bool(len(cross)) and float((cross / sizes).median()) < STRAIGHT
