"""NLINV (Uecker 2008): image and coil sensitivities from the data alone; errors of given maps do no harm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from medrecon.coils.maps.nlinv import STEPS, joint_steps
from medrecon.core.measurement import Measurement
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver, check_fit


@dataclass(frozen=True)
class NLINV(Solver):
    """Gauss-Newton on y = M F (rho c_j) with smooth c_j; the coil images rho c_j are then combined by the maps of A.

    x = sum conj(S_j) rho c_j / sum |S_j|^2 makes the image comparable with that of other solvers; the maps of A take no
    part in the estimate, and chi^2/m, of A x, holds what they get wrong as well. 0 where the maps are 0.

    Args:
        steps: Gauss-Newton steps; alpha halves with each, so more are sharper and noisier.

    Raises:
        ValueError: no step at all, or an operator that is not Cartesian MRI.
    """

    steps: int = STEPS

    name: ClassVar[str] = "nlinv"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = (
        "image and coil maps estimated together by regularised Gauss-Newton; needs no ACS but the very middle"
    )
    scans: ClassVar[str] = "cartesian"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"{self}: needs steps >= 1")

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        check_fit(A, y)
        if not isinstance(A, CartesianMRI):
            raise ValueError(f"nlinv: needs Cartesian k-space of coils, got {A!r}")
        maps = A.maps.to(y.data.device, y.data.dtype)
        power = maps.abs().square().sum(1)
        image, own = torch.zeros_like(y.data[:, 0]), y.data
        monitor = Monitor(y, self.steps, on_step)
        weight = torch.where(A.mask[:, None].to(y.precision) != 0, y.precision, 0)
        for rho, own in joint_steps(y.data, weight, steps=self.steps):
            image = _combine(maps, power, rho[:, None] * own)
            if monitor(A(image)):
                break
        return monitor.solution(A, image, len(monitor.residuals) == self.steps, maps=own)

    @classmethod
    def examples(cls) -> Iterator[NLINV]:
        yield cls()
        yield cls(steps=6)


def _combine(maps: Tensor, power: Tensor, coil_images: Tensor) -> Tensor:
    """sum conj(S) x / sum |S|^2, (B, H, W); 0 where there are no maps."""
    combined = (maps.conj() * coil_images).sum(1)
    return torch.where(power > 0, combined / power.clamp_min(torch.finfo(power.dtype).tiny), 0)
