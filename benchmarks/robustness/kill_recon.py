"""Kill `medrecon recon` at random moments until it ends: nothing half-written, nothing left over, the same bytes.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/robustness/kill_recon.py --kills 50 --seed 1

To NIfTI and DICOM, onto nothing and over an old output, by one process, by two workers and by three shards. Three
of four kills are SIGKILL to all processes, the others SIGTERM to the first, which finishes its slice. After each the
old output has to be whole, or none be there; at the end the output is that of a run left alone, DICOM but for its
dates. Prints a table, with the seconds that going on saved; exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import save_scan
from medrecon.simulate import simulate_ct

SLICES, SIDE, ITERATIONS = 12, 64, 300
DATES = ("Date", "Time")
WAYS: dict[str, list[list[str]]] = {
    "alone": [[]],
    "two workers": [["--workers", "2"]],
    "three shards": [["--shard", f"{i}/3"] for i in (1, 2, 3)],
}


@dataclass
class Tally:
    """What was seen of one kind of run."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    alone: float = 0.0
    spent: float = 0.0
    lost: float = 0.0


def measure(folder: Path) -> Path:
    """A scan of random pixels."""
    g = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([3.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    volume = Volume(200 * torch.rand(SLICES, SIDE, SIDE, generator=g), affine, "HU", "CT")
    path = folder / "ct.h5"
    save_scan(simulate_ct(volume, size=SIDE, views=30, generator=g), path)
    return path


def start(scan: Path, output: Path, more: list[str], seed: int = 0) -> subprocess.Popen[bytes]:
    """A run in a session of its own, so that all of its processes can be killed at once."""
    line = ["recon", str(scan), "-o", str(output), "--solver", "tv", "--batch", "1", "--quiet", "--seed", str(seed)]
    line += ["--settings.iterations", str(ITERATIONS), "--settings.tolerance", "0", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "medrecon", *line], start_new_session=True, stderr=subprocess.DEVNULL
    )


def digest(output: Path) -> str:
    """Of a file its bytes; of a DICOM folder all but dates and times."""
    if not output.exists():
        return "nothing"
    if output.is_file():
        return hashlib.sha256(output.read_bytes()).hexdigest()
    import pydicom

    found = hashlib.sha256()
    for path in sorted(output.iterdir()):
        dataset = pydicom.dcmread(path)
        told = [line for line in str(dataset).splitlines() if not any(date in line for date in DATES)]
        found.update("\n".join([path.name, *told]).encode() + dataset.PixelData)
    return found.hexdigest()


def campaign(scan: Path, folder: Path, name: str, way: str, over: bool, kills: int, chance: random.Random) -> Tally:
    """Kill runs of one kind `kills` times at least, and let the last end."""
    tally, output = Tally(), folder / name
    began = time.monotonic()
    if start(scan, output, []).wait():
        raise SystemExit("the run that is left alone failed")
    tally.alone = time.monotonic() - began
    expected, beside = digest(output), sorted(os.listdir(folder))
    while tally.kills.total() < kills:
        old = "nothing"
        for item in list(folder.iterdir()):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        if over:
            start(scan, output, ["--slices", "0:2"]).wait()
            old = digest(output)
        more = ["--overwrite"] if over else []
        until_done(scan, output, [[*part, *more] for part in WAYS[way]], tally, old, chance)
        if digest(output) != expected:
            tally.faults.append("another output than that of a run left alone")
        if sorted(os.listdir(folder)) != beside:
            tally.faults.append(f"left over: {set(os.listdir(folder)) - set(beside)}")
    return tally


def until_done(scan: Path, output: Path, parts: list[list[str]], tally: Tally, old: str, chance: random.Random) -> None:
    """Start what has not ended yet, kill it, and look; the fourth time it is left to end."""
    kept = output.with_name(f"{output.name}.slices")
    left = parts
    for attempt in itertools.count():
        processes = [start(scan, output, part) for part in left]
        began, limit = time.monotonic(), chance.uniform(1.0, tally.alone) if attempt < 3 else None
        number = signal.SIGKILL if chance.random() < 0.75 else signal.SIGTERM
        while any(p.poll() is None for p in processes) and (limit is None or time.monotonic() < began + limit):
            time.sleep(0.01)
        before = len(list(kept.glob("*.part")))
        alive = [p for p in processes if p.poll() is None]
        for process in alive:
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        codes = [p.wait() for p in processes]
        tally.spent += time.monotonic() - began
        tally.kills[number.name] += bool(alive)
        if wrong := [code for code in codes if code not in (0, -number, 128 + number)]:
            tally.faults.append(f"exit codes {wrong}")
        left = [part for part, code in zip(left, codes, strict=True) if code]
        if not left:
            return
        tally.lost += before / SLICES * tally.alone  # what a run that begins anew would do again
        if digest(output) != old and kept.is_dir() and not (kept / "done").exists():
            tally.faults.append("the old output changed before all slices were there")
        if digest(output) != old:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, at least")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, faults = random.Random(options.seed), 0
    kinds = list(itertools.product(("x.nii.gz", "x"), WAYS, (False, True)))
    print("| output | run | over an old one | kills | faults | s alone | s of all attempts | s that going on saved |")
    print("|---|---|---|---|---|---|---|---|")
    for name, way, over in kinds:
        with tempfile.TemporaryDirectory() as place:
            scan, folder = measure(Path(place)), Path(place) / "out"
            folder.mkdir()
            tally = campaign(scan, folder, name, way, over, -(-options.kills // len(kinds)), chance)
        faults += len(tally.faults)
        kills = ", ".join(f"{count} {number}" for number, count in sorted(tally.kills.items()))
        seconds = " | ".join(f"{value:.1f}" for value in (tally.alone, tally.spent, tally.lost))
        what = "; ".join(sorted(set(tally.faults))) or "0"
        print(f"| {'NIfTI' if '.' in name else 'DICOM'} | {way} | {over} | {kills} | {what} | {seconds} |", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
