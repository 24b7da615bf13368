"""Counts to line integrals: dark and flat field, dead elements, and how many photons the counts stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon.core.noise import CTNoise
from medrecon.corrections.inpaint import interpolate_rays

Array = NDArray[np.float64]
DEAD = 0.05
"""An element is dead when flat minus dark is below this part of the median."""
LIMIT = 0.2
"""More dead elements, or samples without counts, than this part of all: something else is wrong."""


@dataclass(frozen=True, eq=False)
class Corrected:
    """Line integrals (Z, V, D) float32 and what had to be mended: dead elements of Z * D, empty samples of all."""

    lines: NDArray[np.float32]
    dead: int
    empty: int

    def facts(self) -> dict[str, int]:
        """For the provenance."""
        return {"dead_elements_interpolated": self.dead, "samples_without_counts_interpolated": self.empty}


def flat_field(counts: NDArray[Any], flat: Array, dark: Array) -> Corrected:
    """-ln((counts - dark) / (flat - dark)) of counts (Z, V, D), any type, with mean flat and dark (Z, D).

    Dead elements, and samples with no more counts than the dark field, are interpolated along the detector.

    Raises:
        ValueError: NaN or infinite values, flats no brighter than darks, or too much to mend.
    """
    for name, array in (("data", counts), ("flat field", flat), ("dark field", dark)):
        if strange := sum(int(part.size - np.isfinite(part).sum()) for part in array):
            raise ValueError(f"{name}: {strange} NaN or infinite values")
    open_beam = flat - dark
    middle = float(np.median(open_beam))
    if not middle > 0:
        raise ValueError(
            f"flat field: no brighter than the dark field (median difference {middle:.4g}); are the two swapped?"
        )
    dead = open_beam <= DEAD * middle
    empty = sum(int(((part <= black) & ~out).sum()) for part, black, out in zip(counts, dark, dead))
    for name, part in (
        ("flat field: dead elements", dead.mean()),
        ("data: samples at or below the dark field", empty / counts.size),
    ):
        if part > LIMIT:
            raise ValueError(f"{name}: {part:.0%} of all; are flat field, dark field and data of one scan?")
    lines = np.empty(counts.shape, dtype=np.float32)
    for z in range(len(counts)):  # slice by slice: the double precision needs memory
        try:
            lines[z] = _slice(counts[z], open_beam[z], dark[z], dead[z])
        except ValueError as error:
            raise ValueError(f"data: slice {z}: {error}") from error
    return Corrected(lines, int(dead.sum()), empty)


def _slice(counts: NDArray[Any], open_beam: Array, dark: Array, dead: NDArray[np.bool_]) -> Array:
    """Line integrals (V, D) of one slice."""
    signal = counts - dark
    bad = (signal <= 0) | dead
    if (dark_views := np.flatnonzero(bad.all(-1))).size:
        raise ValueError(f"no counts in view {dark_views[0]}; is it dark? leave it out of the file")
    lines = -np.log(np.where(bad, 1.0, signal) / np.where(dead, 1.0, open_beam))
    return interpolate_rays(torch.from_numpy(lines), torch.from_numpy(bad)).numpy()


def photons(flats: Array, darks: Array) -> CTNoise | None:
    """Return the noise, i0 and sigma_e, of repeated flats and darks (N, Z, D); None when they do not tell.

    Photon transfer (Janesick, Photon Transfer, SPIE 2007): of Poisson counts with any gain, mean^2 / variance is the
    number of photons. Flats are first scaled to one brightness, as beams drift. sigma_e is in photons.
    """
    if len(flats) < 4 or len(darks) < 4:
        return None
    flats, dark = flats - darks.mean(0), darks.mean(0)
    level = flats.mean((1, 2), keepdims=True)
    flats = flats * (level.mean() / level)
    mean, readout = flats.mean(0), (darks - dark).var(0, ddof=1)
    good = mean > DEAD * np.median(mean)
    variance = _typical((flats.var(0, ddof=1) / mean**2)[good], len(flats) - 1)
    electronic = _typical((readout / mean**2)[good], len(darks) - 1)
    if not variance > electronic:
        return None
    i0 = 1 / (variance - electronic)
    return CTNoise(i0, i0 * electronic**0.5) if 10 < i0 < 1e9 else None


def _typical(variances: Array, freedom: int) -> float:
    """The median, without the bias of the median of a chi^2 (Wilson and Hilferty 1931): outliers do not count."""
    return float(np.median(variances)) / (1 - 2 / (9 * freedom)) ** 3
