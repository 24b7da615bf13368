"""MRI operators: adjoints in single and double precision, the normal operator against both passes, prox against CG.

    python benchmarks/accuracy/mri_exactness.py

Sizes are odd and not square. Adjoint: |<Ax, y> - <x, A^H y>| / (|Ax| |y|) with zero-mean Gaussian vectors, the largest
of batches of 1, 3 and 16. Normal operator: |gram(x) - A^H A x| / |A^H A x|.
Prox: |A^H (A x - y) + w (x - z)| / |A^H (y - A z)|.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.noncartesian import NonCartesianMRI
from medrecon.operators.mri.nufft.transform import NUFFT
from medrecon.operators.mri.off_resonance import OffResonance
from medrecon.operators.mri.real_image import RealImage
from medrecon.operators.mri.simultaneous import SimultaneousMultiSlice
from medrecon.sampling.lines import random_mask
from medrecon.sampling.radial import golden_angles, radial, stack_of_stars
from medrecon.sampling.two_axes import poisson_mask

ODD = (77, 93)
WIDE = {torch.complex64: torch.complex128, torch.float32: torch.float64}
NARROW = {wide: narrow for narrow, wide in WIDE.items()}


def cases() -> Iterator[tuple[str, LinearOperator]]:
    g = torch.Generator().manual_seed(0)
    maps = birdcage_maps(5, ODD, g).to(torch.complex128)
    phase = torch.polar(torch.ones(ODD), 3 * torch.rand(ODD, generator=g)).to(torch.complex128)
    lines, disc = random_mask(ODD, 3, 9, g), poisson_mask(ODD, 4, 12, g)
    spokes = radial(golden_angles(41), 160, ODD)
    yield "Cartesian, one coil", CartesianMRI(torch.ones(1, *ODD, dtype=torch.complex128), disc)
    yield "Cartesian, lines", CartesianMRI(maps, lines)
    yield "Cartesian, rows, phase", CartesianMRI(maps.mT, lines.mT, phase.mT)
    yield "Cartesian, Poisson disc", CartesianMRI(maps, disc)
    yield "radial, gridding", NonCartesianMRI(spokes, ODD, maps)
    yield "radial, gridding, width for 1e-9", NonCartesianMRI(spokes, ODD, maps, eps=1e-9)
    yield "radial, finufft", NonCartesianMRI(spokes, ODD, maps, eps=1e-9, backend="finufft")
    yield "NUFFT, one coil", NUFFT(spokes, ODD)
    stars = stack_of_stars(golden_angles(9), 40, (7, 21, 24))
    stack = birdcage_maps(3, (21, 24), g)[:, None].expand(-1, 7, -1, -1)
    yield "stack of stars, finufft", NonCartesianMRI(stars, (7, 21, 24), stack)
    field = 60 * torch.randn((1, 1), generator=g) + torch.linspace(-60, 60, ODD[1]).expand(ODD)
    times = torch.linspace(0, 8e-3, ODD[0])[:, None].expand(ODD)
    lined = CartesianMRI(maps, lines)
    yield "off-resonance, Cartesian", OffResonance(lined, field, times)
    along = torch.linspace(0, 8e-3, 160).repeat(41)
    yield "off-resonance, radial", OffResonance(NonCartesianMRI(spokes, ODD, maps), field, along)
    bands = torch.stack([birdcage_maps(5, ODD, g) for _ in range(3)])
    yield "3 slices at once", SimultaneousMultiSlice.cartesian(bands, lines, 1 / 3)
    single, smooth = CartesianMRI(maps.to(torch.complex64), lines), phase.to(torch.complex64)
    yield "real image behind a phase", single @ RealImage(smooth)


def gaussian(batch: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn((batch, *shape), dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def inner(a: Tensor, b: Tensor) -> complex:
    """<a, b>, summed in double precision."""
    return complex((a.to(torch.complex128).conj() * b.to(torch.complex128)).sum())


def mismatch(A: LinearOperator, wide: bool) -> float:
    """The largest adjoint error over batches."""
    worst = 0.0
    for batch in (1, 3, 16):
        kind = (WIDE if wide else NARROW).get
        x = gaussian(batch, A.in_shape, kind(A.in_dtype, A.in_dtype), batch)
        y = gaussian(batch, A.out_shape, kind(A.out_dtype, A.out_dtype), -batch)
        seen, back = A(x), A.adjoint(y)
        ahead, behind = inner(seen, y), inner(x, back)
        gap = abs(ahead - behind) if x.is_complex() else abs(ahead.real - behind.real)
        worst = max(worst, gap / float(seen.norm().double() * y.norm().double()))
    return worst


def prox_residual(A: LinearOperator, method: str | None) -> float:
    x, y = gaussian(1, A.in_shape, A.in_dtype, 5), gaussian(1, A.out_shape, A.out_dtype, 6)
    weight = 0.05
    options = {"method": method} if isinstance(A, CartesianMRI) else {}
    found = A.prox(x, y, weight, iterations=200, tolerance=1e-12, **options)
    residual = A.adjoint(A(found) - y) + weight * (found - x)
    return float(residual.norm() / A.adjoint(y - A(x)).norm())


def main() -> None:
    print("| operator | adjoint, complex64 | complex128 | normal operator | prox |")
    print("|---|---|---|---|---|")
    for name, A in cases():
        x = gaussian(2, A.in_shape, WIDE.get(A.in_dtype, A.in_dtype), 9)
        method = A._methods()[0] if isinstance(A, CartesianMRI) else None
        both = relative(A.gram(x), A.adjoint(A(x)))
        label = f" ({method})" if method else " (cg)"
        print(
            f"| {name} | {mismatch(A, False):.1e} | {mismatch(A, True):.1e} | {both:.1e} "
            f"| {prox_residual(A, method):.1e}{label} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
