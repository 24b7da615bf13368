"""Solver: a frozen dataclass of hyper-parameters, called with an operator and a measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator


@dataclass(frozen=True)
class Progress:
    """One finished step of a solver; chi2 is chi^2/m, the mean over the batch."""

    step: int
    steps: int
    chi2: float


OnStep = Callable[[Progress], bool | None]
"""Called after every step; returning True stops the solver, which returns what it has."""


@dataclass(frozen=True, eq=False)
class Solution:
    """image (B, *in_shape); residuals: chi^2/m after every step; chi2 (B,): at the end."""

    image: Tensor
    residuals: list[float]
    chi2: Tensor
    converged: bool
    diagnostics: dict[str, Any] = field(default_factory=dict)


class Solver(ABC):
    """x from y = A x + n. Randomness only from `generator`; a batch of slices is solved as single ones would be, unless
    the solver couples them.

    A solver is a frozen dataclass: its fields are its settings. If it needs a prior, one of them is `prior`.

    Attributes:
        name: in settings and on the command line, such as "cg-sense".
        modalities: what it reconstructs.
        summary: one line.
        needs_prior: whether it is learned.
        scans: "any" scan of its modality; "cartesian" k-space; "one coil", Cartesian k-space of one; "partial fourier",
            k-space of which one end was left out (of other Cartesian k-space it makes nothing new); "series" over time,
            (T, H, W), which no scan holds.
        slow: whether a slice takes minutes; then it runs only where it is named, not where all do.
        early: why it ends before it converges, where that is meant.
        direct: whether it computes the image in one pass, without fitting it to the data: chi^2/m is then no measure
            of success.
        couples: whether a batch is a stack of neighbouring slices, in their order, that know of each other: it is then
            given all slices that are asked for as one batch, which is not what they would be alone.
    """

    name: ClassVar[str]
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]]
    summary: ClassVar[str]
    needs_prior: ClassVar[bool] = False
    scans: ClassVar[str] = "any"
    early: ClassVar[str] = ""
    direct: ClassVar[bool] = False
    slow: ClassVar[bool] = False
    couples: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        """Reconstruct a batch: data (B, *A.out_shape) to an image (B, *A.in_shape)."""

    @classmethod
    def examples(cls) -> Iterator[Solver]:
        """Yield settings that the contract tests run."""
        yield from ()


def check_fit(A: LinearOperator, y: Measurement) -> None:
    """Refuse a measurement that is not one of A; every solver calls this first.

    Raises:
        ValueError: no batch (B, *A.out_shape) with B >= 1, other kinds of numbers than A gives, or a precision above 0
            for samples that A does not take: their residual is 0 whatever the image, and chi^2/m comes out too low.
    """
    if y.data.ndim != len(A.out_shape) + 1 or tuple(y.data.shape[1:]) != A.out_shape:
        raise ValueError(
            f"the measurement does not fit its operator: data of shape {tuple(y.data.shape)}, "
            f"but {A!r} gives (B, {', '.join(map(str, A.out_shape))})"
        )
    if y.data.is_complex() != A.out_dtype.is_complex:
        raise ValueError(f"the measurement does not fit its operator: data of {y.data.dtype}, but {A!r}")
    if not len(y.data):
        raise ValueError("the measurement is empty, a batch of 0 items: there is nothing to reconstruct")
    if A.items not in (1, len(y.data)):
        raise ValueError(
            f"the measurement does not fit its operator: {len(y.data)} items, but {A!r} has settings (maps, masks, "
            f"phases, ...) of {A.items}"
        )
    if A.sampled is not None and bool(((y.precision > 0) & ~A.sampled.to(y.precision.device)).any()):
        raise ValueError(
            f"the measurement does not fit its operator: a precision above 0 for samples that {A!r} does not take; "
            "they are not measured, and theirs is 0: Measurement(data, precision * A.sampled)"
        )


class Monitor:
    """Collects chi^2/m per step and asks on_step whether to stop."""

    def __init__(self, y: Measurement, steps: int, on_step: OnStep | None) -> None:
        self.y, self.steps, self.on_step = y, steps, on_step
        self.residuals: list[float] = []

    def __call__(self, projection: Tensor) -> bool:
        """Record the forward projection of the current image; True to stop."""
        return self.record(self.y.chi2(projection))

    def record(self, chi2: Tensor) -> bool:
        """Record chi^2/m of the current image, (B,); True to stop."""
        self.residuals.append(float(chi2.mean()))
        progress = Progress(len(self.residuals), self.steps, self.residuals[-1])
        return bool(self.on_step(progress)) if self.on_step is not None else False

    def solution(self, A: LinearOperator, image: Tensor, converged: bool, **diagnostics: Any) -> Solution:
        """Wrap up: 0 where A sees nothing, chi^2/m computed from the image itself."""
        image = image if A.support is None else image * A.support
        return Solution(image, self.residuals, self.y.chi2(A(image)), converged, dict(diagnostics))
