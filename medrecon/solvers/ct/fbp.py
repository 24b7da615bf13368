"""Filtered backprojection as a solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.filtered.fbp import Window
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit


@runtime_checkable
class _HasFBP(Protocol):
    def fbp(self, sinogram: Tensor, window: Window = "ramp") -> Tensor: ...


@dataclass(frozen=True)
class FBP(Solver):
    """Filtered backprojection: one pass, no noise model; the data's precision is not used. Of a cone beam on a circle:
    FDK.

    Attributes:
        window: apodisation of the ramp filter; 'hann' trades resolution for noise, 'ramp' keeps the resolution.
    """

    window: Window = "hann"

    name: ClassVar[str] = "fbp"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct",)
    summary: ClassVar[str] = "filtered backprojection, the clinical standard and the fastest"
    direct: ClassVar[bool] = True

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Reconstruct; see `Solver`.

        Raises:
            TypeError: an operator that has no filtered backprojection.
            ValueError: rays that were not measured (precision 0), which one pass cannot leave out.
        """
        if not isinstance(A, _HasFBP):
            raise TypeError(f"FBP: {A!r} has no filtered backprojection; it takes a CTOperator. Use 'sirt' or 'cgls'")
        check_fit(A, y)
        if missing := int((y.precision == 0).expand(y.data.shape).sum()):
            raise ValueError(
                f"fbp: {missing} samples have precision 0, not measured, and filtered backprojection would take their "
                "values for measured ones: fill them in (corrections.inpaint.interpolate_rays; medrecon "
                "correct --filled measured), or use 'cgls' or 'tv'"
            )
        monitor = Monitor(y, 1, on_step)
        image = A.fbp(y.data, self.window)
        projection = A(image)
        monitor(projection)
        return Solution(image, monitor.residuals, y.chi2(projection), True)

    @classmethod
    def examples(cls) -> Iterator[FBP]:
        yield cls()
        yield cls(window="ramp")
