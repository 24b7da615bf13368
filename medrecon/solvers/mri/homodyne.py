"""Homodyne detection for partial Fourier (Noll, Nishimura & Macovski 1991)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from medrecon.core.measurement import Measurement
from medrecon.kspace.partial_fourier import centre_phase, coverage
from medrecon.operators.base import LinearOperator
from medrecon.solvers.base import Monitor, OnStep, Solution, Solver
from medrecon.solvers.mri.kspace import acquired_kspace


@dataclass(frozen=True)
class Homodyne(Solver):
    """x = exp(i phi) Re(exp(-i phi) sum conj(S) F^H(w y)): lines without a mirror image count twice.

    w is Noll's ramp along the axis that was left out on one side, found from the samples; phi is the phase of the
    symmetric centre. Exact for a constant phase, good for one that is smooth; no iterations. Aliasing of other
    undersampling stays: `phase-constrained` removes both. When neither side was left out, w = 1 and nothing is
    projected: the image is that of `zero-filled`.

    Args:
        width: of the centre the phase is taken from, at most; all of it by default.

    Raises:
        ValueError: not a Cartesian scan, both axes partial, or no symmetric centre.
    """

    width: int | None = None

    name: ClassVar[str] = "homodyne"
    modalities: ClassVar[tuple[Literal["ct", "mri"], ...]] = ("mri",)
    summary: ClassVar[str] = "partial Fourier by ramp weights and the phase of the symmetric centre; no iterations"
    scans: ClassVar[str] = "partial fourier"

    def __call__(
        self, A: LinearOperator, y: Measurement, *, generator: torch.Generator, on_step: OnStep | None = None
    ) -> Solution:
        scan = acquired_kspace(A, y, self.name)
        weighted, phases, fractions = [], [], []
        maps = scan.maps.expand(scan.samples.shape)
        for samples, acquired, S in zip(scan.samples, scan.acquired, maps, strict=True):
            partial = [c for c in (coverage(acquired, axis) for axis in (-2, -1)) if c.partial]
            if len(partial) > 1:
                raise ValueError(
                    "homodyne: k-space is partial along both axes, and conjugate symmetry restores one; "
                    "use phase-constrained"
                )
            weights = [(c.ramp()[:, None] if c.axis == -2 else c.ramp()).to(samples.device) for c in partial]
            weighted.append(samples * weights[0] if weights else samples)
            phases.append(centre_phase(samples, acquired, S, self.width) if weights else None)
            fractions.append(partial[0].fraction if partial else 1.0)
        image = scan.combine(torch.stack(weighted))
        pairs = zip(phases, image, strict=True)
        image = torch.stack([x if p is None else p * (p.conj() * x).real for p, x in pairs])
        monitor = Monitor(y, 1, on_step)
        monitor(A(image))
        return monitor.solution(A, image, converged=True, fractions=fractions)

    @classmethod
    def examples(cls) -> Iterator[Homodyne]:
        yield cls()
