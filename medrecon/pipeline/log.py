"""What a reconstruction says of itself: warnings, and the report."""

from __future__ import annotations

import logging
from typing import Any

from medrecon.pipeline.choose import settable
from medrecon.pipeline.part import Part
from medrecon.solvers.base import Solver

log = logging.getLogger(__name__)

LENGTHS = ("iterations", "steps")
"""Settings that say how long a solver goes on."""
MEANING = (
    "far above 1 the image contradicts the samples; near 1 it explains them down to their noise, which is no proof of "
    "what was not measured"
)
"""What chi^2/m says of an image: the report carries it, since the number alone is taken for more."""


def warn(whole: Part, solver: Solver, first: int = 0) -> None:
    """Say what failed, and what did not converge and how to make it.

    Args:
        first: number of item 0 in the measurement.

    Raises:
        Exception: what the first item raised, if all of them failed.
    """
    if not whole.chi2:
        raise next(iter(whole.failed.values()))
    for item, error in whole.failed.items():
        log.warning("slice %d could not be reconstructed and is empty in the result: %s", first + item, line(error))
    if not whole.unfinished:
        return
    chi2 = sum(whole.chi2[i] for i in whole.unfinished) / len(whole.unfinished)
    names = [f.name for f in settable(type(solver)) if f.name in LENGTHS]
    after = f" in {getattr(solver, names[0])} {names[0]}" if names else ""
    advice = f"raise --settings.{names[0]}" if names else "look at it before you use it"
    advice = f"that is meant, {solver.early}" if solver.early else advice
    part = len(whole.unfinished) < whole.stop - whole.start
    where = f", slices {first + whole.unfinished[0]} to {first + whole.unfinished[-1]}" if part else ""
    log.warning("%s has not converged%s (chi^2/m %.3g%s): %s", solver.name, after, chi2, where, advice)


def summary(whole: Part, first: int = 0) -> dict[str, Any]:
    """Return means over slices; of chi^2/m after every step too, a finished slice keeping its last; see `warn`."""
    longest, count = max(len(h) for _, h in whole.histories), whole.stop - whole.start
    padded = [(n, h + h[-1:] * (longest - len(h))) for n, h in whole.histories if h]
    known = sum(n for n, _ in padded)
    result: dict[str, Any] = {
        "chi2": sum(whole.chi2.values()) / len(whole.chi2),
        "chi2_meaning": MEANING,
        "chi2_slices": [whole.chi2.get(i) for i in range(whole.start, whole.stop)],
        "residuals": [sum(n * h[i] for n, h in padded) / known for i in range(longest)],
        "converged": not whole.unfinished and not whole.failed,
        "operator_calls_per_slice": {name: number / count for name, number in sorted(whole.calls.items())},
    }
    if whole.network:
        result["network_calls_per_slice"] = {name: number / count for name, number in sorted(whole.network.items())}
    if whole.failed:
        result["failed"] = {str(first + item): line(error) for item, error in whole.failed.items()}
    return result


def line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
