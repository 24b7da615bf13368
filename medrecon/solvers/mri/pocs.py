"""POCS for partial Fourier (Haacke 1991, Cuppen & van Est 1987; several coils: Samsonov 2004)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.kspace.partial_fourier import centre_phase
from medrecon.numerics.linalg import dot, expand
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.mri.kspace import acquired_kspace


@dataclass(frozen=True)
class POCS(Solver):
    """Alternating projections: onto images of the phase of the symmetric centre, and onto the samples acquired.

    Both sets are convex (exp(i phi) times a real image, of either sign; Haacke's magnitude step is not), so the
    iteration converges, to the last image with the samples put back. Other undersampling is restored from the coil
    maps too, but slowly: `phase-constrained` is a least-squares solution of the same problem.

    Args:
        iterations: at most.
        tolerance: a slice is done once a step changes the image by less than this fraction.
        width: of the centre the phase is taken from, at most; all of it by default.

    Raises:
        ValueError: a setting out of its range, not a Cartesian scan, or no symmetric centre.
    """

    iterations: int = 100
    tolerance: float = 1e-4
    width: int | None = None

    name: ClassVar[str] = "pocs"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "partial Fourier by alternating projections: phase of the symmetric centre, samples"
    scans: ClassVar[str] = "partial fourier"

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.tolerance < 0:
            raise ValueError(f"{self}: needs iterations >= 1 and tolerance >= 0")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        scan = acquired_kspace(A, y, self.name)
        full = CartesianMRI(scan.maps, torch.ones(A.in_shape, device=y.data.device))
        items = zip(scan.samples, scan.acquired, scan.maps.expand(scan.samples.shape), strict=True)
        phase = torch.stack([centre_phase(*item, self.width) for item in items])
        image = scan.combine(scan.samples)
        monitor, done = Monitor(y, self.iterations, on_step), torch.zeros(len(image), dtype=torch.bool)
        done = done.to(image.device)
        for _ in range(self.iterations):
            kspace = full(phase * (phase.conj() * image).real)
            new = scan.combine(torch.where(scan.acquired[:, None], scan.samples, kspace))
            moved, size = dot(new - image, new - image, 2), dot(new, new, 2)
            image = torch.where(expand(done, 2), image, new)
            done = done | (moved <= self.tolerance**2 * size)
            if monitor(A(image)) or bool(done.all()):
                break
        return monitor.solution(A, image, bool(done.all()))

    @classmethod
    def examples(cls) -> Iterator[POCS]:
        yield cls(iterations=20)
