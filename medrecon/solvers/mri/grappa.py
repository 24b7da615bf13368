"""GRAPPA (Griswold 2002): missing k-space interpolated from its neighbours over all coils, then combined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.kspace.grappa import KSpaceInterpolation
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.mri.kspace import acquired_kspace


@dataclass(frozen=True)
class GRAPPA(Solver):
    """x = sum conj(S) F^H(filled k-space): acquired samples as they are, the others from kernels fitted to the ACS.

    Any Cartesian mask with a fully sampled centre: lines (equispaced or not) or 2D patterns; the settings are those of
    `medrecon.kspace.grappa.KSpaceInterpolation`. The coil maps only combine the coil images: GRAPPA works where they
    are wrong. Its image need not agree with the samples through them, so chi^2/m tells the error of the maps.

    Raises:
        ValueError: not a Cartesian scan, no ACS, or one smaller than the kernel.
    """

    readout: int = 5
    """of a mask of lines: samples taken of each neighbouring line, odd"""
    lines: int = 2
    """of a mask of lines: neighbouring acquired lines, half on either side"""
    window: int = 5
    """of a mask over both axes: side of the square that neighbours are taken from, odd"""
    neighbours: int = 8
    """of a mask over both axes: nearest acquired samples"""
    tikhonov: float = 1e-4
    """least regularisation of the weights, of the mean energy of the ACS"""
    noise: float = 1.0
    """regularisation for the noise, of its power over the signal's where the sample lies; 0 is plain GRAPPA"""

    name: ClassVar[str] = "grappa"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "k-space interpolation from neighbours over all coils, calibrated on the ACS"
    scans: ClassVar[str] = "cartesian"

    def __post_init__(self) -> None:
        self._engine()

    def _engine(self) -> KSpaceInterpolation:
        return KSpaceInterpolation(self.readout, self.lines, self.window, self.neighbours, self.tikhonov, self.noise)

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        scan, fill = acquired_kspace(A, y, self.name), self._engine()
        filled = [fill(*each) for each in zip(scan.samples, scan.acquired, scan.variance, strict=True)]
        image = scan.combine(torch.stack(filled))
        monitor = Monitor(y, 1, on_step)
        monitor(A(image))
        return monitor.solution(A, image, converged=True)

    @classmethod
    def examples(cls) -> Iterator[GRAPPA]:
        yield cls()
        yield cls(readout=3, lines=4)
