"""Zero-filled reconstruction: the adjoint of the measured k-space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.noncartesian import NonCartesianMRI
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit


@dataclass(frozen=True)
class ZeroFilled(Solver):
    """x = A^H y: missing samples are zero, coils combined with their maps; along a trajectory, gridding.

    The Cartesian operator is orthonormal, so a fully sampled scan with sum |S|^2 = 1 comes back exactly, and an
    undersampled one is right at the frequencies that were measured. Samples along a trajectory are weighted by the area
    of k-space each of them stands for.
    """

    name: ClassVar[str] = "zero-filled"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "adjoint of the measured k-space, or gridding, coils combined; no regularisation"
    direct: ClassVar[bool] = True

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        measured = torch.where(y.precision > 0, y.data, 0)
        image = A.gridding(measured) if isinstance(A, NonCartesianMRI) else A.adjoint(measured)
        monitor = Monitor(y, 1, on_step)
        monitor(A(image))
        return monitor.solution(A, image, converged=True)

    @classmethod
    def examples(cls) -> Iterator[ZeroFilled]:
        yield cls()
