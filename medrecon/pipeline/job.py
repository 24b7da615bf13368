"""Job: slices of a scan and the solver they are given to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medrecon.core.scan import Scan
from medrecon.core.stack import Stack
from medrecon.core.volume import Volume
from medrecon.models.prior import Prior
from medrecon.pipeline.prepare import prepare
from medrecon.pipeline.problem import Problem, build_problem
from medrecon.pipeline.request import Request
from medrecon.solvers.base import Solver


@dataclass(frozen=True, eq=False)
class Job:
    """Items `start` to `stop` of a scan, its slices or its one volume.

    Attributes:
        solver: a learned one with the prior as it is, not yet in the units of the slices.
        name: what the solver was asked for by.
    """

    scan: Scan
    solver: Solver
    name: str
    problem: Problem
    start: int
    stop: int

    @classmethod
    def of(cls, scan: Scan, solver: str | Solver, request: Request) -> Job:
        """Check the request, load the prior, find coil maps and noise.

        Raises:
            ValueError, FileNotFoundError: as `reconstruct`.
        """
        chosen, (start, stop) = prepare(scan, solver, request)
        name = solver if isinstance(solver, str) else solver.name
        return cls(scan, chosen, name, build_problem(scan, request.device, request.maps), start, stop)

    @property
    def prior(self) -> Prior | None:
        """The prior of a learned solver, as it is."""
        solver: Any = self.solver  # only learned ones have this field
        prior: Prior | None = solver.prior if solver.needs_prior else None
        return prior

    def adapted(self, index: slice) -> Solver:
        """Return the solver for some items: a learned one with its prior in their units."""
        if self.prior is None:
            return self.solver
        changed: Any = self.solver
        solver: Solver = replace(changed, prior=self.problem.prior(self.prior, index))
        return solver

    def batches(self, size: int) -> Iterator[slice]:
        """Yield the items, `size` at a time."""
        for first in range(self.start, self.stop, size):
            yield slice(first, min(first + size, self.stop))

    def empty(self) -> Tensor:
        """Return one item without anything in it, (1, H, W): air or no signal."""
        return torch.full((1, *self.scan.image_shape), -1000.0 if self.problem.units == "HU" else 0.0)

    @property
    def slices_each(self) -> int:
        """Slices of an item: 1, or of a volume all."""
        return self.scan.slice_count // len(self.scan.data)

    def far(self, item: float) -> tuple[float, int]:
        """Return the slices before an item, and how many there are, for whoever is told of progress."""
        return (item - self.start) * self.slices_each, (self.stop - self.start) * self.slices_each

    def volume(self, values: Tensor) -> Volume:
        """Return the items' values, (B, H, W) or (1, Z, H, W), as a volume at its place in the scan."""
        return self.stack(values.flatten(0, -3).__getitem__).whole()

    def stack(self, read: Callable[[int], Tensor]) -> Stack:
        """Return what `read` gives, the values (H, W) of a slice, counted from the first item, at its place."""
        rows, columns = self.scan.crop or (slice(None), slice(None))  # without the oversampled margins
        *_, height, width = self.scan.image_shape
        top, bottom, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        affine = self.scan.affine.clone()
        affine[:3, 3] += left * affine[:3, 0] + top * affine[:3, 1] + self.start * affine[:3, 2]
        shape = ((self.stop - self.start) * self.slices_each, bottom - top, right - left)
        return Stack(
            shape,
            lambda z: read(z)[rows, columns],
            affine,
            self.problem.units,
            self.problem.modality,
            sources(self.scan),
        )


def sources(scan: Scan) -> dict[str, Any]:
    """Return the digests of the DICOM files a scan was simulated from: what a DICOM writer finds its source by.

    Paths, which older files hold, are not followed: they may lead to another patient by now.
    """
    origin = scan.provenance.get("source")
    digests = origin.get("dicom_sha256") if isinstance(origin, dict) else None
    return {"dicom_sha256": [str(digest) for digest in digests]} if isinstance(digests, list) and digests else {}
