"""Peak memory of `medrecon recon` by the number of slices of 512 x 512, to NIfTI and to DICOM, a table.

    OMP_NUM_THREADS=1 python benchmarks/speed/recon_memory.py
    OMP_NUM_THREADS=1 python benchmarks/speed/recon_memory.py --modality mri --counts 2 8

Sinograms of noise, 60 views of a fan, or k-space of noise with the maps of 8 coils: what they show is no matter to
memory. Each run is a process of its own, its peak what the system says of it (VmHWM, by getrusage). TV takes three
iterations and ReSample two steps of one pair, as many as say how much they hold.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path

import torch

from medrecon.core.noise import MRINoise
from medrecon.core.scan import Scan
from medrecon.formats.measurement_file import save_scan
from medrecon.geometry import Cartesian, FanGeometry

SIDE, VIEWS, COLUMNS, COILS = 512, 60, 736, 8
COUNTS = (10, 40, 133)
SOLVERS: dict[str, dict[str, list[str]]] = {
    "ct": {
        "fbp": [],
        "tv": ["--settings.iterations", "3"],
        "resample": ["--settings.steps", "2", "--settings.search", "0", "--settings.pairs", "1"],
    },
    "mri": {"zero-filled": []},
}
AFFINE = torch.diag(torch.tensor([0.7, 0.7, 2.0, 1.0], dtype=torch.float64))


def ct_scan(slices: int) -> Scan:
    """Sinograms of noise."""
    angles = tuple((torch.arange(VIEWS, dtype=torch.float64) * 2 * math.pi / VIEWS).tolist())
    rays = FanGeometry(angles, COLUMNS, 1.0, 595.0, 490.6)
    data = torch.rand(slices, VIEWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    return Scan("ct", data, (SIDE, SIDE), AFFINE, "HU", rays)


def mri_scan(slices: int) -> Scan:
    """K-space of noise, maps of noise too: constant ones compress to what the reader refuses."""
    random = torch.Generator().manual_seed(0)
    data = torch.randn(slices, COILS, SIDE, SIDE, dtype=torch.complex64, generator=random)
    maps = data / torch.linalg.vector_norm(data, dim=1, keepdim=True)
    return Scan("mri", data, (SIDE, SIDE), AFFINE, "a.u.", Cartesian(), maps=maps, noise=MRINoise(1.0))


def peak(scan: Path, output: Path, solver: str, more: list[str]) -> float:
    """MB at most of one run."""
    line = ["-m", "medrecon", "recon", str(scan), "-o", str(output), "--solver", solver, "--quiet", *more]
    pid = os.posix_spawn(sys.executable, [sys.executable, *line, "--overwrite"], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{solver} failed")
    return usage.ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--modality", choices=SOLVERS, default="ct")
    parser.add_argument("--solvers", nargs="*", help="only these")
    options = parser.parse_args()
    print(f"| solver | to | {' | '.join(f'{count} slices' for count in options.counts)} | most over least |")
    print("|---|---|" + "---|" * (len(options.counts) + 1))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for count in options.counts:
            scan = ct_scan(count) if options.modality == "ct" else mri_scan(count)
            save_scan(scan, folder / f"{count}.h5")
            del scan
        for solver, more in SOLVERS[options.modality].items():
            if options.solvers and solver not in options.solvers:
                continue
            for name in ("x.nii.gz", "x"):
                found = [peak(folder / f"{count}.h5", folder / name, solver, more) for count in options.counts]
                cells = " | ".join(f"{value:.0f} MB" for value in found)
                kind = "NIfTI" if "." in name else "DICOM"
                print(f"| {solver} | {kind} | {cells} | {max(found) / min(found):.2f} |", flush=True)


if __name__ == "__main__":
    main()
