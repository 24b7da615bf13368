"""Our non-uniform Fourier transform beside SigPy's and FINUFFT's: CPU time on one thread, and error, in one run.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/speed/mri_nufft.py

Radial, 402 spokes of 512 samples, 8 coils, 320 x 320; then CG-SENSE of 80 spokes, its set-up included.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.numerics.linalg import cg
from medrecon.operators.mri.noncartesian import NonCartesianMRI
from medrecon.operators.mri.nufft.transform import NUFFT
from medrecon.sampling.radial import golden_angles, radial

SHAPE, COILS = (320, 320), 8
Call = Callable[[], Tensor]


def cpu_ms(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each call, in turns, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def error(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def table(title: str, calls: dict[str, Call], exact: Tensor, repeats: int = 5) -> None:
    """Times, ratios to the first, and errors against `exact`."""
    print(f"\n| {title} | CPU ms | x SigPy's default | error |\n|---|---|---|---|")
    times = cpu_ms(calls, repeats)
    base = next(iter(times.values()))
    for name, call in calls.items():
        print(f"| {name} | {times[name]:.1f} | {base / times[name]:.1f} | {error(call(), exact):.1e} |", flush=True)


def main() -> None:
    import sigpy

    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    k = radial(golden_angles(402), 512, SHAPE)
    x = torch.randn((COILS, *SHAPE), dtype=torch.complex64, generator=g)
    y = torch.randn((COILS, len(k)), dtype=torch.complex64, generator=g)
    start = time.process_time()
    ours = NUFFT(k, SHAPE)
    ours(x[:1])
    print(f"plan, first use (and compilation, where it is new): {time.process_time() - start:.2f} CPU-s")
    sharp = NUFFT(k, SHAPE, eps=1e-12, backend="finufft")
    engines = {
        "ours": ours,
        "ours, eps 3e-4": NUFFT(k, SHAPE, eps=3e-4),
        "FINUFFT 1e-4 (single)": NUFFT(k, SHAPE, eps=1e-4, backend="finufft"),
        "FINUFFT 2e-6 (double)": NUFFT(k, SHAPE, eps=2e-6, backend="finufft"),
    }
    xn, yn, kn = x.numpy(), y.numpy(), k.numpy()

    def by_sigpy(oversamp: float, width: int) -> tuple[Call, Call]:
        def ahead() -> Tensor:
            return torch.from_numpy(sigpy.nufft(xn, kn, oversamp, width))

        def back() -> Tensor:
            return torch.from_numpy(sigpy.nufft_adjoint(yn, kn, (COILS, *SHAPE), oversamp, width))

        return ahead, back

    default, wide = by_sigpy(1.25, 4), by_sigpy(2.0, 6)
    for i, title in enumerate(("forward", "adjoint")):
        calls: dict[str, Call] = {"SigPy 1.25, 4": default[i], "SigPy 2, 6": wide[i]}
        for name, A in engines.items():
            calls[name] = functools.partial(A.adjoint, y) if i else functools.partial(A, x)
        exact = sharp(x.to(torch.complex128)) if i == 0 else sharp.adjoint(y.to(torch.complex128))
        table(title, calls, exact)
    normal(k, g)
    reconstruction(g)


def normal(k: Tensor, g: torch.Generator) -> None:
    """A^H A with coils."""
    import sigpy.mri

    maps = birdcage_maps(COILS, SHAPE, g)
    x = torch.randn(SHAPE, dtype=torch.complex64, generator=g)
    start = time.process_time()
    A = NonCartesianMRI(k, SHAPE, maps)
    A.gram(x)
    print(f"\nplan of the normal operator: {time.process_time() - start:.2f} CPU-s")
    S = sigpy.mri.linop.Sense(maps.numpy(), coord=k.numpy())
    exact = NonCartesianMRI(k, SHAPE, maps.to(torch.complex128), eps=1e-12, backend="finufft")
    sharp = exact.adjoint(exact(x.to(torch.complex128)))
    one = sigpy.linop.NUFFT(SHAPE, k.numpy(), toeplitz=True).N
    coils = (maps * x).numpy()

    def by_psf() -> Tensor:
        return sum((m.conj() * torch.from_numpy(one * c) for m, c in zip(maps, coils, strict=True)), torch.zeros(1))

    calls: dict[str, Call] = {
        "SigPy Sense.N": lambda: torch.from_numpy(S.N * x.numpy()),
        "SigPy NUFFT(toeplitz=True), looped": by_psf,
        "ours, Toeplitz": lambda: A.gram(x),
        "ours, both passes": lambda: A.adjoint(A(x)),
    }
    table("normal operator", calls, sharp)


def reconstruction(g: torch.Generator) -> None:
    """20 iterations of CG-SENSE on 80 spokes of an ellipse phantom, set-up included.

    CG in single precision leaves the iterates of double precision after some eight of them, with any operator.
    """
    import sigpy.mri.app

    truth = torch.from_numpy(sigpy.shepp_logan(SHAPE)).to(torch.complex64)
    maps, k = birdcage_maps(COILS, SHAPE, g), radial(golden_angles(80), 512, SHAPE)
    y = NonCartesianMRI(k, SHAPE, maps, eps=1e-7)(truth)
    y = y + 0.01 * y.abs().square().mean().sqrt() * torch.randn(y.shape, dtype=y.dtype, generator=g) / math.sqrt(2)

    def sense() -> Tensor:
        app = sigpy.mri.app.SenseRecon(
            y.numpy(), maps.numpy(), lamda=1e-3, coord=k.numpy(), max_iter=20, show_pbar=False
        )
        return torch.from_numpy(app.run())

    def toeplitz() -> Tensor:
        A = NonCartesianMRI(k, SHAPE, maps)
        return cg(lambda v: A.gram(v) + 1e-3 * v, A.adjoint(y), ndim=2, iterations=20, tolerance=0).x

    exact = NonCartesianMRI(k, SHAPE, maps.to(torch.complex128), eps=1e-12)
    b = exact.adjoint(y.to(torch.complex128))
    same = cg(lambda v: exact.gram(v) + 1e-3 * v, b, ndim=2, iterations=20, tolerance=0).x
    calls: dict[str, Call] = {"SigPy SenseRecon": sense, "ours, with set-up": toeplitz}
    table("80 spokes, 20 iterations of CG; error against the same CG in double", calls, same, repeats=3)
    print(f"\nNRMSE to the phantom: SigPy {error(sense(), truth):.4f}, ours {error(toeplitz(), truth):.4f}")


if __name__ == "__main__":
    main()
