"""ReSample of this checkout beside that of another one: wall seconds a slice and PSNR, from the same measurements.

    git worktree add ../before SOME_COMMIT
    python benchmarks/speed/resample_time.py --before ../before --slices 4 --repeats 3

CT in 30 fan-beam views and MRI 4x with 8 coils, 256 x 256, validation slices, with the latent and with the pixel prior.
The other checkout simulates once. Then both reconstruct by the command line, each in a process of its own, in turn;
the seconds are those of their own reports, without the start of Python, and the ratio is that of the medians. A short
run of each comes first, so that what is compiled and kept is there. Use an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from validation_slices import validation_slices

from medrecon import formats
from medrecon.core.volume import Volume
from medrecon.quality.evaluate import evaluate

HERE = Path(__file__).parents[2]
NUMBERS = {"ct": [10, 60, 102, 110, 30, 80, 98, 105], "mri": [20, 120, 220, 330, 70, 170, 270, 300]}
ACQUISITION = {"ct": ("--views", "30"), "mri": ("--accel", "4")}
PRIORS = {"ct": ("ct", "ct_pixel"), "mri": ("mri", "mri_pixel")}


def medrecon(checkout: Path, threads: int, *arguments: str) -> None:
    """Run a command of the checkout's own medrecon.

    Raises:
        RuntimeError: it fails; with what it said.
    """
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    environment = {**os.environ, **limits, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "medrecon", *arguments, "--overwrite", "--quiet"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {' '.join(command)}\n{done.stderr}")


class Side:
    """One of the two checkouts on one measurement with one prior."""

    def __init__(self, checkout: Path, threads: int, measurement: Path, prior: str, image: Path) -> None:
        self.checkout, self.threads, self.image = checkout, threads, image
        self.arguments = ("recon", str(measurement), "-o", str(image), "--solver", "resample", "--prior", prior)
        self.seconds: list[float] = []

    def warm_up(self) -> None:
        """Build what is kept between runs."""
        medrecon(self.checkout, self.threads, *self.arguments, "--slices", "0:1", "--settings.steps", "2")

    def run(self) -> None:
        """Reconstruct all slices; the seconds of the report are kept, a slice."""
        medrecon(self.checkout, self.threads, *self.arguments)
        report = json.loads(self.image.with_suffix(".report.json").read_text())
        first, last = report["slices"]
        self.seconds.append(report["seconds"] / (last - first))

    def psnr(self, reference: Volume) -> float:
        """Return the PSNR [dB] of the last image; of CT over its full window."""
        return float(evaluate(formats.read(self.image, modality=reference.modality), reference)["psnr_db"])


def compare(sides: Sequence[Side], reference: Volume, repeats: int) -> str:
    """Return the end of a row: seconds, ratio and PSNR of both."""
    for side in sides:
        side.warm_up()
    for turn in range(repeats):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            side.run()
    before, after = (median(side.seconds) for side in sides)
    old, new = (side.psnr(reference) for side in sides)
    return f"{before:.2f} | {after:.2f} | {before / after:.2f} | {old:.2f} | {new:.2f} | {new - old:+.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of another state")
    parser.add_argument("--slices", type=int, default=4, choices=range(1, 9))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--priors", nargs="*", default=[p for both in PRIORS.values() for p in both])
    options = parser.parse_args()
    checkouts = (options.before.resolve(), HERE)
    print("| data | prior | slices | s a slice, before | after | ratio | PSNR dB, before | after | difference |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for modality, priors in PRIORS.items():
            chosen = [p for p in priors if p in options.priors]
            source, measurement = folder / f"{modality}.nii", folder / f"{modality}.h5"
            reference = validation_slices(modality, NUMBERS[modality][: options.slices])
            if chosen:
                formats.write(reference, source)
                how = ("--modality", modality, *ACQUISITION[modality])
                medrecon(checkouts[0], options.threads, "simulate", str(source), "-o", str(measurement), *how)
            for prior in chosen:
                images = folder / f"{prior}_before.nii", folder / f"{prior}_after.nii"
                pairs = zip(checkouts, images, strict=True)
                sides = [Side(where, options.threads, measurement, prior, image) for where, image in pairs]
                row = compare(sides, reference, options.repeats)
                print(f"| {modality} | {prior} | {options.slices} | {row}", flush=True)


if __name__ == "__main__":
    main()
