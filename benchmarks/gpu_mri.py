"""On a GPU: the MRI operators equal to the CPU's to 1e-5, and their times. Ends with a message where there is none.

python benchmarks/gpu_mri.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from medrecon.coils.combine import birdcage_maps
from medrecon.coils.maps.espirit import espirit
from medrecon.operators.base import LinearOperator
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.operators.mri.noncartesian import NonCartesianMRI
from medrecon.sampling.lines import random_mask
from medrecon.sampling.radial import golden_angles, radial
from medrecon.sampling.two_axes import poisson_mask

SIZE, COILS, SLICES = 320, 16, 30


def cases(device: str) -> Iterator[tuple[str, LinearOperator]]:
    """The operators of the benchmark on one device, the same ones on every device."""
    g = torch.Generator().manual_seed(0)
    shape = (SIZE, SIZE)
    maps = birdcage_maps(COILS, shape, g)
    for name, mask in (("lines 4x", random_mask(shape, 4, 24, g)), ("Poisson 6x", poisson_mask(shape, 6, 24, g))):
        yield f"Cartesian {name}", CartesianMRI(maps.to(device), mask.to(device))
    spokes = radial(golden_angles(402), 512, shape)
    yield "radial 402 x 512", NonCartesianMRI(spokes.to(device), shape, maps[:8].to(device))


def seconds(call: Callable[[], Tensor], device: str) -> float:
    """Wall time of the second call: plans and caches are there."""
    for _ in range(2):
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
    return time.perf_counter() - start


def row(name: str, cpu: Callable[[], Tensor], gpu: Callable[[], Tensor]) -> None:
    there, here = cpu(), gpu().cpu()
    gap = float(torch.linalg.vector_norm(there - here) / torch.linalg.vector_norm(there))
    slow, fast = seconds(cpu, "cpu"), seconds(gpu, "cuda")
    print(f"| {name} | {slow * 1e3:.0f} | {fast * 1e3:.1f} | {slow / fast:.0f} | {gap:.1e} |", flush=True)
    if not gap < 1e-5:
        raise SystemExit(f"gpu_mri.py: {name}: GPU and CPU differ by {gap:.1e}, more than 1e-5")


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("gpu_mri.py: torch finds no CUDA device; nothing measured")
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {SLICES} slices")
    print("| what | CPU ms | GPU ms | ratio | difference |\n|---|---|---|---|---|")
    for (name, cpu), (_, gpu) in zip(cases("cpu"), cases("cuda"), strict=True):
        compare(name, cpu, gpu)
    calibrate()


def compare(name: str, cpu: LinearOperator, gpu: LinearOperator) -> None:
    """The rows of one operator."""
    x = torch.randn((SLICES, *cpu.in_shape), dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    y = cpu(x)
    xd, yd = x.cuda(), y.cuda()
    row(f"{name}, forward", lambda: cpu(x), lambda: gpu(xd))
    row(f"{name}, adjoint", lambda: cpu.adjoint(y), lambda: gpu.adjoint(yd))
    row(f"{name}, normal", lambda: cpu.gram(x), lambda: gpu.gram(xd))
    row(f"{name}, prox", lambda: cpu.prox(x[:2], y[:2], 0.1), lambda: gpu.prox(xd[:2], yd[:2], 0.1))


def calibrate() -> None:
    """ESPIRiT of one slice."""
    g = torch.Generator().manual_seed(2)
    shape = (SIZE, SIZE)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    disc = (axes[0][:, None].square() + axes[1].square() < 0.6).to(torch.complex64)
    A = CartesianMRI(birdcage_maps(8, shape, g), torch.ones(shape))
    y = A(disc)
    y = y + 1e-3 / math.sqrt(2) * torch.randn(y.shape, dtype=y.dtype, generator=g)
    row("ESPIRiT, 8 coils", lambda: espirit(y, 24), lambda: espirit(y.cuda(), 24))


if __name__ == "__main__":
    main()
