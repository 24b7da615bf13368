"""What line integrals can be: counts, transmissions and a wrong sign of the logarithm give themselves away."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor

log = logging.getLogger(__name__)

OPAQUE = 30.0
"""A line integral that none is: one photon in 1e13 would pass."""
DARK = 15.0
"""One from which detectors, of 20 bits at most, tell nothing."""
BRIGHTER = (0.03, 0.3)
"""Mean below 0, more photons with the object than without: what a drifting beam makes, and what it does not."""
ENDS = 20
"""Part of the detector, one in so many, that is taken as one of its ends."""
LEAST = 8
"""Elements and views from which the shape of a profile says something."""


def check_line_integrals(data: Tensor, source: Path | str) -> None:
    """Compare line integrals (Z, V, D) or (1, V, R, D) with what objects in scanners have; warn of what is unusual.

    Raises:
        ValueError: counts, transmissions, or the logarithm with the other sign; names the slice.
    """
    for index, views in enumerate(data):
        high, low, mean = float(views.max()), float(views.min()), float(views.double().mean())
        if high > OPAQUE or low < -OPAQUE:
            raise ValueError(
                f"slice {index}: values {low:.4g} to {high:.4g}, and line integrals stay below {OPAQUE:g}: are they "
                "counts? give -ln(counts / flat)"
            )
        if mean < -BRIGHTER[1]:
            raise ValueError(
                f"slice {index}: the mean line integral is {mean:.3g}: more photons with the object than without; is "
                "the sign of the logarithm wrong, or the flat field of another scan?"
            )
        ends, middle, steady = _profile(views)
        if steady and low > -0.2 and high < 1.5 and abs(ends - 1) < 0.1 and middle < 0.98 * ends:
            raise ValueError(
                f"slice {index}: {ends:.3g} at both ends of the detector in every view, {middle:.3g} in its middle: "
                "transmissions, not line integrals; give -ln(transmission)"
            )
        _warn(f"{source}: slice {index}", high, mean, ends, middle)


def _profile(views: Tensor) -> tuple[float, float, bool]:
    """The lesser mean of the two ends of the detector, that of its middle half, and whether the ends never change."""
    by_view = views.double().flatten(1, -2).mean(1) if views.ndim > 2 else views.double()
    count = by_view.shape[1]
    if min(by_view.shape) < LEAST:
        return 0.0, 0.0, False
    wide = max(1, count // ENDS)
    ends = (by_view[:, :wide].mean(1), by_view[:, -wide:].mean(1))
    middle = by_view[:, count // 4 : count - count // 4]
    return min(float(e.mean()) for e in ends), float(middle.mean()), max(float(e.std()) for e in ends) < 0.05


def _warn(where: str, high: float, mean: float, ends: float, middle: float) -> None:
    if high > DARK:
        log.warning("%s: line integrals up to %.3g, where no photon is counted: metal, or another unit?", where, high)
    if mean < -BRIGHTER[0]:
        log.warning("%s: the mean line integral is %.3g: does the flat field belong to the scan?", where, mean)
    elif ends > 0.1 and ends > 1.2 * middle:
        log.warning(
            "%s: both ends of the detector attenuate more (%.3g) than its middle (%.3g): an object beyond its edges, "
            "or not line integrals?",
            where,
            ends,
            middle,
        )
