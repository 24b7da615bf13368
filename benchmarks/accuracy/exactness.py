"""How exact the CT operators are: adjoints by geometry, backend and batch; analytic phantoms; FBP and FDK in HU.

python benchmarks/accuracy/exactness.py        # three markdown tables
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from medrecon.core.units import mu_to_hu
from medrecon.geometry import ConeGeometry, FanGeometry, Geometry, ImageGrid, ParallelGeometry, VolumeGrid
from medrecon.operators.base import LinearOperator
from medrecon.operators.check import adjoint_error
from medrecon.operators.ct.operator import CTOperator

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from ct_phantoms import Ellipse, Ellipsoid, views

BATCHES = (1, 3, 16, 65)
ANGLES = tuple(math.radians(d) for d in (0, 45, 90, 180, 17, 233))
SHIFTS = tuple((0.003 * (-1) ** i, 1.0) for i in range(len(ANGLES)))


def pairs() -> Iterator[tuple[str, CTOperator]]:
    """Every geometry on every backend that claims to be exact; odd and not square."""
    grid = ImageGrid((37, 53), (1.3, 0.9), (2.0, -1.0))
    volume = VolumeGrid((9, 13, 17), (2.0, 2.5, 2.1), (1.0, -0.5, 0.7))
    fan = FanGeometry(ANGLES, 71, 1.7, 90.0, 60.0, 0.4)
    flat = ConeGeometry(ANGLES, (7, 23), (2.9, 3.1), 90.0, 60.0, det_offset=(0.3, 0.8))
    helix = tuple(float(z) for z in range(-3, 3))
    scans: dict[str, Geometry | ConeGeometry] = {
        "parallel": ParallelGeometry(ANGLES, 67, 1.1, 0.3),
        "fan, flat": fan,
        "fan, arc": replace(fan, detector="arc"),
        "fan, arc, flying focus": replace(fan, detector="arc", focal_shifts=SHIFTS),
        "cone, flat": flat,
        "cone, arc": replace(flat, detector="arc"),
        "helix, arc, flying focus": replace(
            flat, detector="arc", heights=helix, focal_shifts=tuple((*s, 0.5) for s in SHIFTS)
        ),
    }
    for name, scan in scans.items():
        if isinstance(scan, ConeGeometry):
            for backend in ("joseph", "torch"):
                yield f"{name} | {backend}, linear", CTOperator(scan, volume, backend)
            continue
        for backend in ("matrix", "joseph", "torch"):
            yield f"{name} | {backend}, linear", CTOperator(scan, grid, backend)  # type: ignore[arg-type]
        if name in ("parallel", "fan, flat"):
            yield f"{name} | astra, line", CTOperator(scan, grid, "astra", "line")
            square = replace(grid, spacing=(1.1, 1.1))
            yield f"{name} | astra, strip", CTOperator(replace(scan, det_offset=0.0), square, "astra", "strip")
    yield "parallel | astra, linear", CTOperator(scans["parallel"], grid, "astra")


class Unmatched(LinearOperator):
    """A projector with the pixel-driven backprojection of FBP for its adjoint: the negative control."""

    def __init__(self, A: CTOperator) -> None:
        self.A, self.in_shape, self.out_shape = A, A.in_shape, A.out_shape

    def _forward(self, x: Tensor) -> Tensor:
        return self.A._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        from medrecon.operators.ct.filtered.backprojection import backproject

        assert not isinstance(self.A.geometry, ConeGeometry) and isinstance(self.A.grid, ImageGrid)
        scale = math.prod(self.A.grid.spacing) / self.A.geometry.iso_spacing
        return backproject(y, self.A.geometry, self.A.grid) * scale

    @classmethod
    def examples(cls) -> Iterator[LinearOperator]:
        yield from ()


def adjoints() -> None:
    print("| geometry | backend, model | " + " | ".join(f"batch {b}" for b in BATCHES) + " |")
    print("|---" * (2 + len(BATCHES)) + "|")
    rows = [*pairs()]
    rows.append(("control: parallel | pixel-driven backprojection", Unmatched(rows[0][1])))  # type: ignore[arg-type]
    for name, A in rows:
        errors = [adjoint_error(A, batch=batch) for batch in BATCHES]
        print(f"| {name} | " + " | ".join(f"{e:.1e}" for e in errors) + " |", flush=True)


BODY = Ellipse(40.0, -25.0, 90.0, 65.0, 0.6)
GRID = ImageGrid((256, 256), (1.4, 1.4), (5.0, -8.0))
FULL, SHORT = views(720), views(460, 1.3 * math.pi)
FAN = FanGeometry(FULL, 600, 1.4, 600.0, 500.0)


def phantoms() -> None:
    """Sinogram error of the projectors at 256^2, and FBP of the analytic sinogram inside the body."""
    few = views(60)
    print("\n| geometry | model | sinogram error |\n|---|---|---|")
    fan = FanGeometry(few, 350, 2.2, 600.0, 500.0)
    for name, geometry in (
        ("parallel", ParallelGeometry(few, 300, 1.4)),
        ("fan, flat", fan),
        ("fan, arc", replace(fan, detector="arc")),
    ):
        for model in ("linear", "line", "strip") if name != "fan, arc" else ("linear",):
            A = CTOperator(geometry, GRID, model=model)
            exact = BODY.sinogram(geometry)
            print(f"| {name} | {model} | {100 * float((A(BODY.image(GRID)) - exact).norm() / exact.norm()):.2f} % |")
    for n in (64, 128):
        ball = Ellipsoid((20.0, -15.0, 10.0), (60.0, 45.0, 50.0))
        cone = ConeGeometry(views(24), (n, 3 * n // 2), (260 / n, 260 / n), 600.0, 400.0)
        volume = VolumeGrid((n, n, n), (160 / n, 200 / n, 200 / n), (10.0, -5.0, 4.0))
        exact = ball.sinogram(cone)
        error = float((CTOperator(cone, volume)(ball.volume(volume)) - exact).norm() / exact.norm())
        print(f"| cone, flat, ellipsoid, {n}³ | linear | {100 * error:.2f} % |", flush=True)


def hounsfield() -> None:
    print("\n| FBP of an ellipse of water, 256² | mean HU | std HU |\n|---|---|---|")
    inside = BODY.inside(GRID, 0.9)
    scans: dict[str, ParallelGeometry | FanGeometry] = {
        "parallel, 180°": ParallelGeometry(views(720, math.pi), 600, 0.7),
        "parallel, 360°": ParallelGeometry(FULL, 600, 0.7),
        "fan, flat, 360°": FAN,
        "fan, arc, 360°": replace(FAN, detector="arc"),
        "fan, flat, short scan": replace(FAN, angles=SHORT),
        "fan, arc, short scan": replace(FAN, angles=SHORT, detector="arc"),
        "fan, arc, quarter offset, 360°": replace(FAN, det_offset=0.35, detector="arc"),
        "fan, arc, two focal positions, 360°": replace(
            FAN, detector="arc", focal_shifts=tuple((0.0006 * (-1) ** i, 0.0) for i in range(720))
        ),
    }
    for name, geometry in scans.items():
        A = CTOperator(geometry, GRID)
        values = mu_to_hu(A.fbp(BODY.sinogram(geometry)))[inside]
        print(f"| {name} | {float(values.mean()):.2f} | {float(values.std()):.2f} |", flush=True)


if __name__ == "__main__":
    adjoints()
    phantoms()
    hounsfield()
