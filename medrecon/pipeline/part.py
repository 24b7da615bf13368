"""Part: what came of one batch, its images and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medrecon.solvers.base import Solution

History = tuple[int, list[float]]
"""Of how many items, and their mean chi^2/m after every step."""


@dataclass(frozen=True, eq=False)
class Part:
    """Items start..stop-1 of a scan, solved.

    Attributes:
        values: (B, *image_shape) on the CPU, in the units of the volume; air or 0 where an item failed.
        chi2: of every item that did not fail, at the end.
        unfinished: items whose solver did not converge.
        failed: what was raised of an item.
        calls: images that the operator took, by what was asked of it.
        network: calls of the networks, all items together.
        seconds: what it took.
    """

    start: int
    stop: int
    values: Tensor
    chi2: dict[int, float] = field(default_factory=dict)
    histories: list[History] = field(default_factory=list)
    unfinished: list[int] = field(default_factory=list)
    failed: dict[int, Exception] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    network: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @classmethod
    def of(cls, index: slice, values: Tensor, solution: Solution, calls: Counter[str], seconds: float) -> Part:
        """Take what a solver says of the items `index`."""
        items = range(index.start, index.stop)
        network = solution.diagnostics.get("network_calls", {})
        return cls(
            index.start,
            index.stop,
            values,
            chi2=dict(zip(items, solution.chi2.tolist(), strict=True)),
            histories=[(len(items), solution.residuals)],
            unfinished=[] if solution.converged else [*items],
            calls=calls,
            network=Counter({name: number * len(items) for name, number in network.items()}),
            seconds=seconds,
        )


def joined(parts: Sequence[Part]) -> Part:
    """Return neighbouring parts as one, in their order.

    Raises:
        ValueError: they are no neighbours, or none at all.
    """
    if not parts or any(a.stop != b.start for a, b in zip(parts, parts[1:], strict=False)):
        raise ValueError(f"expected neighbouring parts, got {[(part.start, part.stop) for part in parts]}")
    return Part(
        parts[0].start,
        parts[-1].stop,
        torch.cat([part.values for part in parts]),
        chi2={item: value for part in parts for item, value in part.chi2.items()},
        histories=[history for part in parts for history in part.histories],
        unfinished=[item for part in parts for item in part.unfinished],
        failed={item: error for part in parts for item, error in part.failed.items()},
        calls=sum((part.calls for part in parts), Counter()),
        network=sum((part.network for part in parts), Counter()),
        seconds=sum(part.seconds for part in parts),
    )
