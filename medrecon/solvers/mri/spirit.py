"""SPIRiT (Lustig & Pauly 2010): k-space that agrees with the samples and with itself, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.numerics.linalg import CGResult, cg
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.self_consistency import self_consistency
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.mri.kspace import acquired_kspace


@dataclass(frozen=True)
class SPIRiT(Solver):
    """min over k of |D k - y|^2 + consistency |(G - I) k|^2, D the acquired samples; then coils are combined.

    G predicts every sample from its neighbours in all coils and is fitted to the ACS. The noise is that of whitened
    coils, the same in all samples. The coil maps only combine the coil images.

    Args:
        kernel: size of the neighbourhood, odd.
        tikhonov: of the fit of G, relative to the mean energy of a sample.
        consistency: weight of G; 0 keeps the acquired samples exactly and makes the others as consistent as possible.
        iterations: at most; few ones regularise (with consistency 2 the best of 10, 20, 30 on validation slices).
        tolerance: a slice is done once its residual is this fraction of the first.

    Raises:
        ValueError: a setting out of its range, not a Cartesian scan, no ACS, or one smaller than the kernel.
    """

    kernel: int = 5
    tikhonov: float = 1e-2
    consistency: float = 2.0
    iterations: int = 20
    tolerance: float = 1e-3

    name: ClassVar[str] = "spirit"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "k-space consistent with the samples and with itself, calibrated on the ACS"
    early: ClassVar[str] = "few iterations regularise"
    scans: ClassVar[str] = "cartesian"

    def __post_init__(self) -> None:
        if not (
            self.kernel >= 1
            and self.kernel % 2
            and self.iterations >= 1
            and self.tolerance >= 0
            and self.tikhonov >= 0
            and self.consistency >= 0
        ):
            raise ValueError(f"{self}: needs an odd kernel, iterations >= 1, the other settings >= 0")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        scan = acquired_kspace(A, y, self.name)
        found = [self._solve(k, acquired) for k, acquired in zip(scan.samples, scan.acquired, strict=True)]
        image = scan.combine(torch.stack([k.x for k in found]))
        monitor = Monitor(y, 1, on_step)
        monitor(A(image))
        return monitor.solution(
            A, image, all(float(k.residual) <= self.tolerance for k in found), iterations=[k.iterations for k in found]
        )

    def _solve(self, samples: Tensor, acquired: Tensor) -> CGResult:
        """Filled k-space of one slice (C, H, W)."""
        G = self_consistency(samples, acquired, self.kernel, self.tikhonov)
        if self.consistency:
            normal = lambda k: torch.where(acquired, k, 0) + self.consistency * G.gram(k)  # noqa: E731
            return cg(normal, samples, ndim=3, x0=samples, iterations=self.iterations, tolerance=self.tolerance)
        free = lambda k: torch.where(acquired, 0, k)  # noqa: E731
        change = cg(
            lambda k: free(G.gram(k)),
            -free(G.gram(samples)),
            ndim=3,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        return CGResult(samples + change.x, change.iterations, change.residual)

    @classmethod
    def examples(cls) -> Iterator[SPIRiT]:
        yield cls()
        yield cls(kernel=3, consistency=0.0, iterations=10)
