"""Corrections of a CT scan: defective elements, rings, beam hardening and metal, in this order."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.core.noise import CTNoise
from medrecon.core.progress import OnProgress, silent
from medrecon.core.scan import Scan
from medrecon.core.units import MU_WATER
from medrecon.corrections.beam_hardening import water_precorrection
from medrecon.corrections.metal import METAL, reduce_metal
from medrecon.corrections.rings import defective_elements, remove_rings, repair_elements
from medrecon.numerics.spectrum import Spectrum
from medrecon.operators.ct.operator import CTOperator

log = logging.getLogger(__name__)

DONE = "corrected"
"""Entry of the provenance."""
NOT_MEASURED = 1e-30
"""Photons of a ray whose value is made up: the square of its counts is 0 in single precision, and so is its weight."""


@dataclass(frozen=True)
class Corrections:
    """What to correct.

    Attributes:
        dead_elements: elements that are dead or far off are interpolated, and weigh nothing.
        rings: stripes that are constant over the views are taken out.
        kvp, filter_mm: voltage [kV] of the tube whose beam hardening by water is taken out, and its filter in mm of
            aluminium; None: not.
        metal: how rays through metal are filled in, "li" or "nmar"; they weigh nothing, and the image lacks the metal.
        threshold: HU from which a first image is metal.
        filled: what rays count whose value is made up: "weightless", solvers that weigh the rays leave them out, and
            filtered backprojection refuses them; "measured", as the others, for filtered backprojection.
    """

    dead_elements: bool = False
    rings: bool = False
    kvp: float | None = None
    filter_mm: float = 8.0
    metal: Literal["li", "nmar"] | None = None
    threshold: float = METAL
    filled: Literal["weightless", "measured"] = "weightless"


def check(scan: Scan, asked: Corrections) -> None:
    """Check that a scan can be corrected.

    Raises:
        ValueError: not CT slice by slice, corrected before, simulated without what is to be taken out, or no HU to tell
            metal by.
    """
    if scan.modality != "ct":
        raise ValueError("the scan is of MRI, which `medrecon import` corrects; these corrections are of CT")
    if scan.volumetric:
        raise ValueError(
            "the scan measures a volume as a whole, and the corrections work slice by slice; import a helix without "
            "--direct, which rebins it to slices"
        )
    if before := scan.provenance.get(DONE):
        raise ValueError(f"the scan is corrected already ({', '.join(before)}); correct the original, all at once")
    if asked.kvp is not None and scan.provenance.get("simulated"):
        raise ValueError("the scan is simulated with one energy: there is no beam hardening to take out")
    if asked.metal is not None and scan.units != "HU" and scan.mu_water is None:
        raise ValueError("metal is told by its HU, and the attenuation of water is not known of this scan")


def correct(scan: Scan, asked: Corrections, on_progress: OnProgress = silent) -> Scan:
    """Correct a CT scan; what was done, and how much of the data is made up, is in its provenance ("corrected").

    Raises:
        ValueError: as `check`, or as the corrections.
    """
    check(scan, asked)
    facts: dict[str, Any] = {}
    p, water = scan.data, MU_WATER if scan.mu_water is None else scan.mu_water
    made_up = torch.zeros(p.shape, dtype=torch.bool)
    if asked.dead_elements:
        dead = defective_elements(p)
        p = repair_elements(p, dead)[0] if bool(dead.any()) else p
        made_up |= dead
        facts["dead_elements"] = dead.nonzero().flatten().tolist()
    if asked.rings:
        clean = remove_rings(p)
        facts["rings"] = {"removed_rms": float((clean - p).square().mean().sqrt())}
        p = clean
    if asked.kvp is not None:
        p = water_precorrection(p, Spectrum(asked.kvp, asked.filter_mm), water)
        facts["beam_hardening"] = {"kvp": asked.kvp, "filter_mm": asked.filter_mm}
    if asked.metal is not None:
        p, trace, pixels = _without_metal(scan, p, asked.metal, asked.threshold, water, on_progress)
        made_up |= trace
        facts["metal"] = {"method": asked.metal, "threshold_hu": asked.threshold, "pixels": pixels}
    noise = scan.noise if isinstance(scan.noise, CTNoise) else None
    if bool(made_up.any()):
        facts["filled_rays"] = {"share": float(made_up.double().mean()), "count_as": asked.filled}
        noise = _weightless(noise, made_up) if asked.filled == "weightless" else noise
    return replace(scan, data=p, noise=noise, provenance={**scan.provenance, DONE: facts})


def _without_metal(
    scan: Scan, p: Tensor, method: Literal["li", "nmar"], threshold: float, water: float, on_progress: OnProgress
) -> tuple[Tensor, Tensor, int]:
    """Line integrals without metal, the rays that met it, and its pixels in all slices."""
    A, done = CTOperator(scan.rays, scan.grid), []
    for index in range(len(p)):
        done.append(reduce_metal(A, p[index : index + 1], method, threshold, water))
        on_progress(index + 1, len(p))
    pixels = sum(int(one.metal.sum()) for one in done)
    return torch.cat([one.data for one in done]), torch.cat([one.trace for one in done]), pixels


def _weightless(noise: CTNoise | None, made_up: Tensor) -> CTNoise | None:
    """The noise model with rays (Z, V, D) that weigh nothing; where the photons are not known, that cannot be told."""
    if noise is None or noise.i0 is None:
        log.warning(
            "the photons of the scan are not known (noise/i0): solvers will take interpolated rays, %.1f %% of all, "
            "for measured ones",
            100 * float(made_up.double().mean()),
        )
        return noise
    photons = noise.photons(made_up).float().expand(made_up.shape)
    return replace(noise, i0=torch.where(made_up, NOT_MEASURED, photons))
