"""Phase-constrained least squares (Bydder & Robson 2005; Willig-Onwuachi 2005): a real image behind a known phase."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.kspace.partial_fourier import centre_phase
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.real_image import RealImage
from medrecon.solvers.base import OnStep, Solution, Solver
from medrecon.solvers.mri.cg_sense import CGSense
from medrecon.solvers.mri.kspace import acquired_kspace


@dataclass(frozen=True)
class PhaseConstrained(Solver):
    """min over real x of |root (A exp(i phi) x - y)|^2 + mu |x|^2 by CG; the image is exp(i phi) x.

    phi is the phase of the fully sampled centre. Conjugate symmetry and coil maps are used at once: for partial
    Fourier with or without other undersampling, along either axis or both, and for any mask with a centre. What the
    phase of the centre misses (fast phase at air and tissue borders, noise) is lost from the image.

    Args:
        iterations, tikhonov, tolerance: as `CGSense`.
        width: of the centre the phase is taken from, at most; all of it by default.

    Raises:
        ValueError: not a Cartesian scan, or no fully sampled centre.
    """

    iterations: int = 15
    tikhonov: float = 3e-3
    tolerance: float = 1e-4
    width: int | None = None

    name: ClassVar[str] = "phase-constrained"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "least squares for a real image behind the phase of the centre: partial Fourier and coils"
    scans: ClassVar[str] = "partial fourier"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        scan = acquired_kspace(A, y, self.name)
        items = zip(scan.samples, scan.acquired, scan.maps.expand(scan.samples.shape), strict=True)
        phase = RealImage(torch.stack([centre_phase(*item, self.width) for item in items]))
        solver = CGSense(iterations=self.iterations, tikhonov=self.tikhonov, tolerance=self.tolerance)
        found = solver(A @ phase, y, generator=generator, on_step=on_step)
        return dataclasses.replace(found, image=phase(found.image))

    @classmethod
    def examples(cls) -> Iterator[PhaseConstrained]:
        yield cls()
        yield cls(iterations=5, width=8)
