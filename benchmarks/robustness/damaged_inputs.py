"""Damaged inputs over all readers: refused by name, accepted with right values, or a fault; a table and every fault.

python benchmarks/robustness/damaged_inputs.py -o out --count 120            # of each input: over 2,000 in all
python benchmarks/robustness/damaged_inputs.py --only nifti card --seeds 17 40 # these again, with their messages

The inputs are found by themselves: an example of every format (tests/support/format_laws.py), and the other files that
are read (tests/support/damage_targets.py). Each is damaged by its seed (tests/support/damage.py) and read in a process
of its own kind, which is ended after `--limit` seconds of computing; its memory is measured, and may grow by what the
file as it was needs, twice, and 128 MiB and 50 times the file's size on top.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SUPPORT = str(Path(__file__).parents[2] / "tests" / "support")
sys.path.insert(0, SUPPORT)
from damage_targets import BAD, GOOD, Outcome, attempt, targets, whole  # noqa: E402

FREE, PER_BYTE, MOST = 128 << 20, 50, 6 << 30
"""Bytes a reader may take anyway, and for each byte of its file; address space at most."""


def peak() -> int:
    """The most memory this process has had since `forget_peak` [bytes]."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak() -> int:
    """Count anew; the memory there is now [bytes]."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def serve(connection: Connection, name: str, original: Path) -> None:
    """Read damaged copies as long as seeds come; the first answer says that the whole input was read."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C libraries say
    target = targets()[name]
    target.read(original)  # what is imported and compiled at the first time does not count
    before = forget_peak()
    known = whole(target, original)
    usual = peak() - before
    connection.send(usual)
    while (seed := connection.recv()) is not None:
        folder = Path(tempfile.mkdtemp(prefix="medrecon-damaged-")) / "x"
        before = forget_peak()
        outcome = attempt(target, known, folder, seed)
        grown = peak() - before
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        if grown > 2 * usual + FREE + PER_BYTE * size:
            outcome = Outcome("memory", outcome.what, f"{grown >> 20} MiB for {size} bytes; {outcome.message}")
        shutil.rmtree(folder.parent, ignore_errors=True)
        connection.send(outcome)


class Reader:
    """A process that reads one kind of input, started again when it died or had to be ended."""

    def __init__(self, name: str, original: Path, limit: float) -> None:
        self.name, self.original, self.limit = name, original, limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["damage_targets"])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.name, self.original), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def read(self, seed: int) -> Outcome:
        """The outcome of one seed; "hang" after `limit` seconds of computing, or ten times that of waiting."""
        self.connection.send(seed)
        start, used = time.monotonic(), self._cpu()
        while not self.connection.poll(0.2):
            if self._cpu() - used > self.limit or time.monotonic() - start > 10 * self.limit:
                return self._again(Outcome("hang", f"seed {seed}"))
            if not self.process.is_alive():
                return self._again(Outcome("crash", f"seed {seed}", f"exit code {self.process.exitcode}"))
        try:
            outcome: Outcome = self.connection.recv()
        except EOFError:
            self.process.join()
            return self._again(Outcome("crash", f"seed {seed}", f"exit code {self.process.exitcode}"))
        return outcome

    def _cpu(self) -> float:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _again(self, outcome: Outcome) -> Outcome:
        self.close()
        self._start()
        return outcome

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def table(results: list[dict[str, Any]]) -> str:
    """Outcomes by input, as Markdown."""
    kinds = [*GOOD, *BAD]
    rows = [f"| input | all | {' | '.join(kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    for name in [*dict.fromkeys(r["input"] for r in results), "all"]:
        counts = Counter(r["outcome"] for r in results if name in (r["input"], "all"))
        rows.append(f"| {name} | {counts.total()} | {' | '.join(str(counts[k] or '') for k in kinds)} |")
    return "\n".join(rows)


def main() -> int:
    """Run the seeds; 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="folder for results.jsonl and table.md")
    parser.add_argument("--count", type=int, default=100, help="damaged copies of each input")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds, with their messages")
    parser.add_argument("--only", nargs="+", choices=sorted(targets()), default=sorted(targets()))
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of computing before a reader hangs")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="medrecon-originals-") as root:
        for name in args.only:
            home = Path(root) / name
            home.mkdir()
            reader = Reader(name, targets()[name].make(home), args.limit)
            for seed in args.seeds or range(args.first, args.first + args.count):
                found = reader.read(seed)
                results.append(
                    {"input": name, "seed": seed, "outcome": found.kind, "damage": found.what, "message": found.message}
                )
                if args.seeds or found.kind in BAD:
                    print(f"{name}:{seed} {found.kind}: {found.what}: {found.message}", flush=True)
            reader.close()
    print("\n" + table(results))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
        (args.output / "table.md").write_text(table(results) + "\n")
    return int(any(r["outcome"] in BAD for r in results))


if __name__ == "__main__":
    sys.exit(main())
