"""What `medrecon recon --dry-run` tells of time and memory, beside what the run then took: eight cases, a table.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/speed/estimates.py      # on an idle machine

Volumes of smooth noise; time is that of the whole command, memory its peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import save_scan
from medrecon.simulate import simulate_ct, simulate_mri

CASES: tuple[tuple[str, str, int, list[str]], ...] = (
    ("ct", "fbp", 24, []),
    ("ct", "sirt", 24, []),
    ("ct", "tv", 24, []),
    ("ct", "resample", 3, ["--prior", "ct_pixel"]),
    ("mri", "zero-filled", 24, []),
    ("mri", "cg-sense", 24, []),
    ("mri", "tv", 12, []),
    ("mri", "resample", 4, ["--prior", "mri_pixel"]),
)
SIDE = 256


def measure(modality: str, slices: int) -> Scan:
    """30 views, or 8 coils and every fourth line."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, slices, 16, 16, generator=g)
    values = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")[0].clamp(0, 1)
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0], dtype=torch.float64))
    if modality == "ct":
        return simulate_ct(Volume(200 * values, affine, "HU", "CT"), size=SIDE, views=30, generator=g)
    return simulate_mri(Volume(values, affine, "a.u.", "MR"), accel=4.0, acs=24, coils=8, generator=g)


def main() -> None:
    print("| scan | solver | slices | told: s | took: s | ratio | told: MB | took: MB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for number, (modality, solver, slices, more) in enumerate(CASES):
            scan, output = Path(place) / f"{number}.h5", Path(place) / f"{number}.nii.gz"
            save_scan(measure(modality, slices), scan)
            line = [sys.executable, "-m", "medrecon", "recon", str(scan), "-o", str(output), "--solver", solver, *more]
            dry = subprocess.run([*line, "--dry-run", "--json"], check=True, stdout=subprocess.PIPE)
            told = json.loads(dry.stdout)["estimate"]
            began = time.perf_counter()
            _, status, usage = os.wait4(os.posix_spawn(line[0], [*line, "--quiet"], os.environ), 0)
            took, memory = time.perf_counter() - began, usage.ru_maxrss / 1e3
            if status:
                raise SystemExit(f"{solver} failed")
            ratios = told["seconds"] / took, told["memory_mb"] / memory
            print(
                f"| {modality} | {solver} | {slices} | {told['seconds']:.0f} | {took:.0f} | {ratios[0]:.2f} | "
                f"{told['memory_mb']} | {memory:.0f} | {ratios[1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
