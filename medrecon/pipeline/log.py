"""What the batches of a reconstruction report, gathered slice by slice."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from medrecon.pipeline.choose import settable
from medrecon.solvers.base import Solution, Solver

log = logging.getLogger(__name__)

LENGTHS = ("iterations", "steps")
"""Settings that say how long a solver goes on."""
MEANING = (
    "far above 1 the image contradicts the samples; near 1 it explains them down to their noise, which is no proof of "
    "what was not measured"
)
"""What chi^2/m says of an image: the report carries it, since the number alone is taken for more."""


class Log:
    """Gathers chi^2/m, convergence, calls and failures of items start..stop-1 of a scan."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.chi2: dict[int, float] = {}
        self.failed: dict[int, Exception] = {}
        self.unfinished: list[int] = []
        self.histories: list[tuple[int, list[float]]] = []
        self.calls: Counter[str] = Counter()
        self.network: Counter[str] = Counter()

    def add(self, index: slice, solution: Solution, calls: Counter[str]) -> None:
        """Take what a solver says of the items `index`."""
        items = range(index.start, index.stop)
        self.chi2.update(zip(items, solution.chi2.tolist(), strict=True))
        self.histories.append((len(items), solution.residuals))
        self.unfinished += [] if solution.converged else items
        self.calls += calls
        for name, number in solution.diagnostics.get("network_calls", {}).items():
            self.network[name] += number * len(items)

    def warn(self, solver: Solver) -> None:
        """Say what failed, and what did not converge and how to make it.

        Raises:
            Exception: what the first item raised, if all of them failed.
        """
        if not self.chi2:
            raise next(iter(self.failed.values()))
        for item, error in self.failed.items():
            log.warning("slice %d could not be reconstructed and is empty in the result: %s", item, _line(error))
        if not self.unfinished:
            return
        chi2 = sum(self.chi2[i] for i in self.unfinished) / len(self.unfinished)
        names = [f.name for f in settable(type(solver)) if f.name in LENGTHS]
        after = f" in {getattr(solver, names[0])} {names[0]}" if names else ""
        advice = f"raise --settings.{names[0]}" if names else "look at it before you use it"
        advice = f"that is meant, {solver.early}" if solver.early else advice
        part = len(self.unfinished) < self.stop - self.start
        where = f", slices {self.unfinished[0]} to {self.unfinished[-1]}" if part else ""
        log.warning("%s has not converged%s (chi^2/m %.3g%s): %s", solver.name, after, chi2, where, advice)

    def report(self) -> dict[str, Any]:
        """Return means over slices; of chi^2/m after every step too, a finished slice keeping its last."""
        longest, count = max(len(h) for _, h in self.histories), self.stop - self.start
        padded = [(n, h + h[-1:] * (longest - len(h))) for n, h in self.histories if h]
        known = sum(n for n, _ in padded)
        result: dict[str, Any] = {
            "chi2": sum(self.chi2.values()) / len(self.chi2),
            "chi2_meaning": MEANING,
            "chi2_slices": [self.chi2.get(i) for i in range(self.start, self.stop)],
            "residuals": [sum(n * h[i] for n, h in padded) / known for i in range(longest)],
            "converged": not self.unfinished and not self.failed,
            "operator_calls_per_slice": {name: number / count for name, number in sorted(self.calls.items())},
        }
        if self.network:
            result["network_calls_per_slice"] = {name: number / count for name, number in sorted(self.network.items())}
        if self.failed:
            result["failed"] = {str(item): _line(error) for item, error in self.failed.items()}
        return result


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
