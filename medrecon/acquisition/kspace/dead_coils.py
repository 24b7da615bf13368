"""Coils that are not connected: no noise in the noise readouts, or not one sample that is not 0."""

from __future__ import annotations

import logging
from dataclasses import replace

from medrecon.core.scan import Scan

log = logging.getLogger(__name__)


def without_silent_coils(scan: Scan, numbers: list[int], count: int) -> Scan:
    """Return the scan without coils whose samples are all 0, and say which of the scanner's coils were left out.

    Args:
        numbers: of the scan's coils among the `count` of the scanner; the others were left out before.

    Raises:
        ValueError: every coil is 0.
    """
    alive = scan.live_coils
    if not bool(alive.any()):
        raise ValueError("every sample of the image is 0: nothing was measured")
    kept = [number for number, live in zip(numbers, alive.tolist(), strict=True) if live]
    if len(kept) == count:
        return scan
    dead = sorted(set(range(count)) - set(kept))
    log.warning("%s: coils %s have no noise or no signal: left out", scan.provenance.get("source", "raw data"), dead)
    scan = scan if bool(alive.all()) else scan.of_coils(alive)
    return replace(scan, provenance={**scan.provenance, "dead_coils": dead})
