"""Counts to line integrals: dark and flat field, dead elements, and how many photons the counts stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def flat_field(counts: Array, flat: Array, dark: Array) -> Corrected:
    """-ln((counts - dark) / (flat - dark)) of counts (Z, V, D) with mean flat and dark (Z, D).

    Dead elements, and samples with no more counts than the dark field, are interpolated along the detector.

    Raises:
        ValueError: NaN or infinite values, flats no brighter than darks, or too much to mend.
    """
    for name, array in (("data", counts), ("flat field", flat), ("dark field", dark)):
        if strange := int(array.size - np.isfinite(array).sum()):
            raise ValueError(f"{name}: {strange} NaN or infinite values")
    open_beam = flat - dark
    middle = float(np.median(open_beam))
    if not middle > 0:
        raise ValueError(f"flat field: no brighter than the dark field (median difference {middle:.4g}); "
                         f"are the two swapped?")  # fmt: skip
    dead = open_beam <= DEAD * middle
    signal = counts - dark[:, None]
    empty = (signal <= 0) & ~dead[:, None]
    for name, mask in (("flat field: dead elements", dead), ("data: samples at or below the dark field", empty)):
        if mask.mean() > LIMIT:
            raise ValueError(f"{name}: {mask.mean():.0%} of all; are flat field, dark field and data of one scan?")
    bad = empty | dead[:, None]
    ratio = np.where(bad, 1.0, signal) / np.where(dead, 1.0, open_beam)[:, None]
    return Corrected(interpolated(-np.log(ratio), bad).astype(np.float32), int(dead.sum()), int(empty.sum()))


def interpolated(lines: Array, bad: NDArray[np.bool_]) -> Array:
    """(Z, V, D) with bad samples replaced by the line between their good neighbours in the view.

    Raises:
        ValueError: a view without a good sample.
    """
    elements = np.arange(lines.shape[-1])
    for z, v in zip(*np.nonzero(bad.any(-1))):
        good = ~bad[z, v]
        if not good.any():
            raise ValueError(f"data: no counts in view {v} of slice {z}; is it dark? leave it out of the file")
        lines[z, v, ~good] = np.interp(elements[~good], elements[good], lines[z, v, good])
    return lines


def photons(flats: Array, darks: Array) -> dict[str, float]:
    """Noise parameters i0 and sigma_e from repeated flats and darks (N, Z, D); nothing when they do not tell.

    Photon transfer (Janesick, Photon Transfer, SPIE 2007): of Poisson counts with any gain, mean^2 / variance is the
    number of photons. Flats are first scaled to one brightness, as beams drift. sigma_e is in photons.
    """
    if len(flats) < 4 or len(darks) < 4:
        return {}
    flats, dark = flats - darks.mean(0), darks.mean(0)
    level = flats.mean((1, 2), keepdims=True)
    flats = flats * (level.mean() / level)
    mean, readout = flats.mean(0), (darks - dark).var(0, ddof=1)
    good = mean > DEAD * np.median(mean)
    variance = float(np.median((flats.var(0, ddof=1) / mean**2)[good]))
    electronic = float(np.median((readout / mean**2)[good]))
    if not variance > electronic:
        return {}
    i0 = 1 / (variance - electronic)
    return {"i0": i0, "sigma_e": i0 * electronic**0.5} if 10 < i0 < 1e9 else {}
