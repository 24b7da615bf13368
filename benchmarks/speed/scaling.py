"""One `medrecon recon` on 1, 2 and 4 workers, as shards, on Dask, with a killed worker, and two runs side by side.

    python benchmarks/speed/scaling.py      # on an idle machine; sets its threads itself

TV of --slices slices of 256 x 256, one a batch, 30 views. Outputs have to be the same, byte for byte. The overhead of a
batch is that of FBP, whose work is next to nothing. Seconds are of whole commands, their start (2 to 3 s) included.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from estimates import measure

from medrecon.formats.measurement_file import save_scan

Process = subprocess.Popen[bytes]


def start(scan: Path, output: Path, *more: str, solver: str = "tv", threads: int | None = None) -> Process:
    line = ["recon", str(scan), "-o", str(output), "--solver", solver, "--batch", "1", "--quiet", "--overwrite", *more]
    given = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    free = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return subprocess.Popen([sys.executable, "-m", "medrecon", *line], env=free | given, stderr=subprocess.DEVNULL)


def seconds(processes: Callable[[], Sequence[Process]]) -> float:
    """Wall time until all have ended well."""
    began = time.perf_counter()
    codes = [process.wait() for process in processes()]
    if any(codes):
        raise SystemExit("a run failed")
    return time.perf_counter() - began


def killed(process: Process) -> list[Process]:
    """Kill a worker of a run once it is at work."""
    time.sleep(6)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    return [process]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        scan, out = Path(place) / "ct.h5", lambda name: Path(place) / f"{name}.nii.gz"
        save_scan(measure("ct", options.slices), scan)
        ways: dict[str, Callable[[], Sequence[Process]]] = {
            "one process, all cores": lambda: [start(scan, out("1"))],
            "one process, one thread": lambda: [start(scan, out("t"), threads=1)],
            "2 workers": lambda: [start(scan, out("2"), "--workers", "2")],
            "4 workers": lambda: [start(scan, out("4"), "--workers", "4")],
            "2 shards of one thread": lambda: [start(scan, out("s"), "--shard", f"{i}/2", threads=1) for i in (1, 2)],
            "Dask, local": lambda: [start(scan, out("d"), "--scheduler", "local")],
            "2 workers, one killed": lambda: killed(start(scan, out("k"), "--workers", "2")),
            "two runs side by side": lambda: [start(scan, out(name)) for name in ("a", "b")],
        }
        print("| run | s |\n|---|---|")
        for name, way in ways.items():
            print(f"| {name} | {seconds(way):.1f} |", flush=True)
        contents = {path.name: path.read_bytes() for path in Path(place).glob("*.nii.gz")}
        print(f"\noutputs: {len(contents)}, different ones: {len(set(contents.values()))}")
        fbp = [
            seconds(lambda n=n: [start(scan, out("f"), "--workers", n, solver="fbp")])  # type: ignore[misc]
            for n in ("1", "2")
        ]
        one = seconds(lambda: [start(scan, out("f"), "--slices", "0:1", solver="fbp")])
        print(f"FBP, {options.slices} slices: {fbp[0]:.1f} s, on 2 workers {fbp[1]:.1f} s; one slice {one:.1f} s")


if __name__ == "__main__":
    main()
