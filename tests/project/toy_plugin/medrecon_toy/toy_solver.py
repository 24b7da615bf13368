"""Landweber's iteration (Am. J. Math. 73:615, 1951) as a solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit


@dataclass(frozen=True)
class Toy(Solver):
    """x <- x + A^H (y - A x) / |A|^2, from x = 0."""

    iterations: int = 20

    name: ClassVar[str] = "toy"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("ct", "mri")
    summary: ClassVar[str] = "Landweber's iteration, from outside of medrecon"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        monitor, step = Monitor(y, self.iterations, on_step), 1 / A.norm(device=y.data.device) ** 2
        x, projection = torch.zeros_like(A.adjoint(y.data)), torch.zeros_like(y.data)
        for _ in range(self.iterations):
            x = x + step * A.adjoint(y.data - projection)
            projection = A(x)
            if monitor(projection):
                break
        return monitor.solution(A, x, len(monitor.residuals) == self.iterations)

    @classmethod
    def examples(cls) -> Iterator[Toy]:
        yield cls()
