"""Coil maps and CG-SENSE beside SigPy's and BART's on one core: CPU seconds, agreement, peak memory, one run.

    OMP_NUM_THREADS=1 python benchmarks/speed/mri_coils.py            # 8 and 16 coils, 320^2; then CG-SENSE

A phantom whose coils vary within the pixel, with noise; calibration 24 x 24, kernel 6. BART's time is user and system
time of its process, files included. The error of maps is 1 - |<found, true>|. Peak memory is that of a call over what
imports and k-space take, in a process of its own.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from bart_tool import bart, from_bart, to_bart
from coil_phantom import overlap, scan

from medrecon.coils.combine import acs_images
from medrecon.coils.compression import compress, compress_geometric
from medrecon.coils.maps.espirit import espirit
from medrecon.coils.maps.jsense import jsense_maps
from medrecon.coils.maps.walsh import walsh_maps
from medrecon.numerics.linalg import cg
from medrecon.operators.mri.cartesian import CartesianMRI
from medrecon.sampling.lines import acceleration, random_mask

SHAPE = (320, 320)
Timed = Callable[[], tuple[Tensor, float]]
"""Gives its result and the CPU seconds it took."""


def timed(call: Callable[[], Tensor]) -> Timed:
    def run() -> tuple[Tensor, float]:
        start = time.process_time()
        result = call()
        return result, time.process_time() - start

    return run


def sigpy_espirit(kspace: Tensor) -> Tensor:
    import sigpy.mri.app

    app = sigpy.mri.app.EspiritCalib(kspace.numpy(), calib_width=24, kernel_width=6, crop=0.95, show_pbar=False)
    return torch.from_numpy(app.run())


def bart_espirit(kspace: Tensor) -> tuple[Tensor, float]:
    (maps,), seconds = bart(["ecalib", "-m", "1", "-k", "6", "-r", "24", "-t", "0.02", "-c", "0.95"], to_bart(kspace))
    return from_bart(maps), seconds


def map_methods(kspace: Tensor) -> dict[str, Timed]:
    methods = {
        "ESPIRiT, medrecon": timed(lambda: espirit(kspace)),
        "ESPIRiT, SigPy": timed(lambda: sigpy_espirit(kspace)),
        "Walsh, medrecon": timed(lambda: walsh_maps(acs_images(kspace))),
        "JSENSE, SigPy": timed(lambda: jsense_maps(kspace)),
    }
    if shutil.which("bart"):
        methods["ESPIRiT, BART"] = lambda: bart_espirit(kspace)
    return methods


def tikhonov(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    A = CartesianMRI(maps, mask)
    return cg(lambda x: A.gram(x) + 0.01 * x, A.adjoint(kspace), ndim=2, iterations=30, tolerance=1e-7).x


def sigpy_tikhonov(kspace: Tensor, maps: Tensor) -> Tensor:
    import sigpy.mri.app

    return torch.from_numpy(
        sigpy.mri.app.SenseRecon(kspace.numpy(), maps.numpy(), lamda=0.01, max_iter=30, show_pbar=False).run()
    )


def bart_tikhonov(kspace: Tensor, maps: Tensor) -> tuple[Tensor, float]:
    options = ["pics", "-l2", "-r", "0.01", "-i", "30", "-w", "1", "-S"]
    (image,), seconds = bart(options, to_bart(kspace), to_bart(maps))
    return from_bart(image), seconds


def measure(methods: dict[str, Timed], repeats: int) -> dict[str, tuple[Tensor, float]]:
    """Result and median time of each, taken in turns after one call to warm up."""
    results = {name: run()[0] for name, run in methods.items()}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, run in methods.items():
            times[name].append(run()[1])
    return {name: (results[name], statistics.median(times[name])) for name in methods}


def compare_maps(coils: int, repeats: int) -> None:
    kspace, truth, support = scan(coils, SHAPE)
    found = measure(map_methods(kspace), repeats)
    ours, seconds = found["ESPIRiT, medrecon"]
    for name, (maps, took) in found.items():
        seen = support & (maps.abs().sum(0) > 0)
        error = 1 - overlap(maps, truth)[seen]
        same = overlap(maps, ours)
        part = float((maps.abs().sum(0) > 0).float().mean())
        print(
            f"| {coils} | {name} | {took:.2f} | {took / seconds:.1f} | {part:.3f} "
            f"| {float(error.median()):.1e} | {float(error.quantile(0.99)):.1e} "
            f"| {float(same[same > 0].median()):.7f} | {peak(name, kspace)} |",
            flush=True,
        )


def compare_images(repeats: int) -> None:
    kspace, *_ = scan(8, SHAPE)
    mask = random_mask(SHAPE, 3.8, 24, torch.Generator().manual_seed(0))
    kspace = kspace * mask
    maps = espirit(kspace)
    methods = {
        "medrecon": timed(lambda: tikhonov(kspace, maps, mask)),
        "SigPy": timed(lambda: sigpy_tikhonov(kspace, maps)),
    }
    if shutil.which("bart"):
        methods["BART"] = lambda: bart_tikhonov(kspace, maps)
    found = measure(methods, repeats)
    ours, seconds = found["medrecon"]
    print(f"\nCG-SENSE, 8 coils, 320², R = {acceleration(mask):.2f}, weight 0.01, 30 iterations\n")
    print("| method | CPU s | x ours | difference from ours |\n|---|---|---|---|")
    for name, (image, took) in found.items():
        print(f"| {name} | {took:.2f} | {took / seconds:.1f} | {float((image - ours).norm() / ours.norm()):.1e} |")


def compare_compression() -> None:
    kspace, *_ = scan(32, SHAPE, sigma=0.002)
    print("\n32 coils compressed to V: part of the energy lost\n\n| V | SVD | geometric |\n|---|---|---|")
    for count in (4, 6, 8, 12):
        lost = [1 - f(kspace, count)[1].retained for f in (compress, compress_geometric)]
        print(f"| {count} | {lost[0]:.1e} | {lost[1]:.1e} |")


def peak(name: str, kspace: Tensor) -> str:
    """Peak resident memory in MB of one call over what imports and k-space take, in a process of its own."""
    if name.endswith("BART"):
        return ""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, kspace.numpy())
        file.flush()
        command = [sys.executable, __file__, "--memory", name, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def memory(name: str, path: str) -> None:
    kspace = torch.from_numpy(np.load(path))
    map_methods(kspace[:2, 128:192, 128:192].contiguous())[name]()  # imports and compiles
    before = high_water()
    map_methods(kspace)[name]()
    print(f"{high_water() - before:.0f}")


def high_water() -> float:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--coils", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--memory", nargs=2, help="method and a file of k-space: used by the benchmark itself")
    options = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    if options.memory:
        memory(*options.memory)
        return
    print("| coils | maps | CPU s | x ours | support | error: median | 99 % | overlap with ours | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for coils in options.coils:
        compare_maps(coils, options.repeats)
    compare_images(options.repeats)
    compare_compression()


if __name__ == "__main__":
    main()
