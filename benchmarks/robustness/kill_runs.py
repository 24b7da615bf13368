"""Kill medrecon at random moments until it ends: nothing half-written, nothing left over, the same bytes.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/robustness/kill_runs.py --kills 50 --seed 1
    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/robustness/kill_runs.py --commands noise simulate

`recon` to NIfTI and DICOM by one process, by two workers and by three shards; `noise`, `simulate`, `import` and
`evaluate`; all onto nothing and over an old output. Three of four kills are SIGKILL to all processes, the others
SIGTERM to the first. After each the old output has to be whole, or none be there; at the end the output is that of a
run left alone, DICOM but for its dates. Prints a table, with the seconds that going on saved; exit code 1 if anything
was wrong. `import` and `evaluate` go on with nothing.
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

from medrecon import formats
from medrecon.core.volume import Volume
from medrecon.formats.measurement_file import save_scan
from medrecon.simulate import simulate_ct, simulate_mri

SLICES, SIDE = 12, 64
DATES = ("Date", "Time")
ALONE: list[list[str]] = [[]]
WAYS: dict[str, list[list[str]]] = {
    "alone": ALONE,
    "two workers": [["--workers", "2"]],
    "three shards": [["--shard", f"{i}/3"] for i in (1, 2, 3)],
}
TV = ["--solver", "tv", "--settings.tolerance", "0", "--settings.iterations"]


@dataclass(frozen=True)
class Kind:
    """A command, without its output, and in which ways it is run.

    Attributes:
        output: file or folder; `flag` names it.
        other: options that make another, old output.
        parts: how many it keeps of a whole run; 0: it begins anew.
    """

    command: list[str]
    output: str
    other: list[str]
    ways: tuple[str, ...] = ("alone",)
    flag: str = "-o"
    parts: int = SLICES


@dataclass
class Tally:
    """What was seen of one kind of run."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    alone: float = 0.0
    spent: float = 0.0
    lost: float = 0.0


def kinds(place: Path) -> list[Kind]:
    """What is tried, with its inputs, made of random pixels."""
    g = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([3.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    volume = Volume(200 * torch.rand(SLICES, SIDE, SIDE, generator=g), affine, "HU", "CT")
    save_scan(simulate_ct(volume, size=SIDE, views=30, generator=g), place / "ct.h5")
    large = Volume(200 * torch.rand(4 * SLICES, 2 * SIDE, 2 * SIDE, generator=g), affine, "a.u.", "MR")
    formats.write(large, place / "mr.nii")
    formats.write(
        Volume(large.data + torch.randn(large.data.shape, generator=g), affine, "a.u.", "MR"), place / "r.nii"
    )
    formats.export(simulate_mri(large, coils=4, acs=16, matched=True, generator=g), place / "raw.h5", "fastmri")
    recon = ["recon", str(place / "ct.h5"), "--batch", "1", *TV, "300"]
    some = ["--slices", "0:2"]
    return [
        Kind(recon, "x.nii.gz", some, tuple(WAYS)),
        Kind(recon, "x", some, tuple(WAYS)),
        Kind(["noise", str(place / "ct.h5"), "--replicas", "4", *TV, "75"], "n.nii", some, ("alone", "two workers")),
        Kind(["simulate", str(place / "mr.nii"), "--modality", "mri"], "s.h5", some, parts=4 * SLICES),
        Kind(["import", str(place / "raw.h5")], "i.h5", some, parts=0),
        Kind(
            ["evaluate", str(place / "r.nii"), str(place / "mr.nii")],
            "p.png",
            ["--grid", "recon"],
            flag="--picture",
            parts=0,
        ),
    ]


def start(kind: Kind, output: Path, more: list[str]) -> subprocess.Popen[bytes]:
    """A run in a session of its own, so that all of its processes can be killed at once."""
    line = [*kind.command, kind.flag, str(output), "--quiet", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "medrecon", *line],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
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


def campaign(kind: Kind, folder: Path, way: str, over: bool, kills: int, chance: random.Random) -> Tally:
    """Kill runs of one kind `kills` times at least, and let the last end."""
    tally, output = Tally(), folder / kind.output
    began = time.monotonic()
    if start(kind, output, []).wait():
        raise SystemExit(f"{kind.command}: the run that is left alone failed")
    tally.alone = time.monotonic() - began
    expected, beside = digest(output), sorted(os.listdir(folder))
    while tally.kills.total() < kills:
        old = "nothing"
        for item in list(folder.iterdir()):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        if over:
            start(kind, output, kind.other).wait()
            old = digest(output)
        more = ["--overwrite"] if over else []
        until_done(kind, output, [[*part, *more] for part in WAYS[way]], tally, old, chance)
        if digest(output) != expected:
            tally.faults.append("another output than that of a run left alone")
        if sorted(os.listdir(folder)) != beside:
            tally.faults.append(f"left over: {set(os.listdir(folder)) - set(beside)}")
    return tally


def until_done(kind: Kind, output: Path, parts: list[list[str]], tally: Tally, old: str, chance: random.Random) -> None:
    """Start what has not ended yet, kill it, and look; the fourth time it is left to end."""
    kept = output.with_name(f"{output.name}.slices")
    left = parts
    for attempt in itertools.count():
        processes = [start(kind, output, part) for part in left]
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
        if kind.parts:
            tally.lost += before / kind.parts * tally.alone  # what a run that begins anew would do again
        if digest(output) != old and kept.is_dir() and not (kept / "done").exists():
            tally.faults.append("the old output changed before all slices were there")
        if digest(output) != old:  # killed once it was written: the same command clears what was kept for it
            for part in left:
                if (code := start(kind, output, part).wait()) not in (0, 2):  # 2: it exists
                    tally.faults.append(f"exit code {code} of a run whose output is there")
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", help="only these")
    options = parser.parse_args()
    chance, faults = random.Random(options.seed), 0
    print("| command | output | run | over an old one | kills | faults | s alone | s of all | s that going on saved |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        tried = [kind for kind in kinds(Path(place)) if not options.commands or kind.command[0] in options.commands]
        every = [(kind, way, over) for kind in tried for way in kind.ways for over in (False, True)]
        for kind, way, over in every:
            folder = Path(place) / "out"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            tally = campaign(kind, folder, way, over, -(-options.kills // len(every)), chance)
            faults += len(tally.faults)
            print(row(kind, way, over, tally), flush=True)
    return 1 if faults else 0


def row(kind: Kind, way: str, over: bool, tally: Tally) -> str:
    kills = ", ".join(f"{count} {number}" for number, count in sorted(tally.kills.items()))
    seconds = [f"{value:.1f}" for value in (tally.alone, tally.spent, tally.lost)]
    what = "; ".join(sorted(set(tally.faults))) or "0"
    name = kind.output if "." in kind.output else "DICOM"
    return "| " + " | ".join([kind.command[0], name, way, "yes" if over else "no", kills, what, *seconds]) + " |"


if __name__ == "__main__":
    sys.exit(main())
