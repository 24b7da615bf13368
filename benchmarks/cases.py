"""Run the small inputs that failed, `../shared/cases`, and print a row for each: exit 1 if one shows a fault.

    make cases
    python benchmarks/cases.py --folder ../shared/cases 03 11

The cases were written for an earlier layout. Each runs in a process of its own, where the names it imports
(`medrecon.io`, `medrecon.raw`, `medrecon.volume`) lead to what they are now; the cases themselves stay as they are.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parents[1]


def module(name: str, **names: Any) -> ModuleType:
    """Make a module of these names that `import name` finds."""
    made = ModuleType(name)
    made.__dict__.update(names)
    sys.modules[name] = made
    return made


def old_names() -> None:
    """Let this process import medrecon by the names of the earlier layout."""
    import medrecon
    from medrecon import formats
    from medrecon.acquisition import options
    from medrecon.core import scan, volume

    def untyped(*positional: Any, **named: Any) -> scan.Scan:
        """An MRI scan on a grid; geometry and noise were dicts, empty in the cases."""
        return scan.Scan(*positional, **{k: v for k, v in named.items() if v != {}})

    io = module("medrecon.io", read=formats.read, write=formats.write)
    io.__path__ = []  # a package
    module("medrecon.io.scan", Scan=untyped)
    raw = module("medrecon.raw", read_raw=formats.read_raw)
    raw.__path__ = []
    module("medrecon.raw.options", RawOptions=options.RawOptions)
    module("medrecon.volume", Volume=volume.Volume)
    medrecon.io, medrecon.raw = io, raw  # type: ignore[attr-defined]


def run(case: Path) -> tuple[int, int, list[str]]:
    """Run a case; expectations met, its exit status, and the lines of its faults or of its failure."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, __file__, "--inside", str(case)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    faults = [line for line in lines if line.startswith("FAULT")]
    if done.returncode and not faults:
        faults = done.stderr.splitlines()[-1:]
    return sum(line.startswith("ok") for line in lines), done.returncode, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / ".." / "shared" / "cases")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help="beginnings of the cases' names; all by default")
    options = parser.parse_args()
    if options.inside:
        old_names()
        runpy.run_path(str(options.inside), run_name="__main__")
        return 0
    cases = sorted(options.folder.resolve().glob("*/case.py"))
    chosen = [c for c in cases if not options.names or c.parent.name.startswith(tuple(options.names))]
    if not chosen:
        print(f"{options.folder}: no cases of these names", file=sys.stderr)
        return 2
    failed = 0
    print("| case | met | faults |\n|---|---|---|")
    for case in chosen:
        met, status, faults = run(case)
        failed += status != 0
        print(f"| {case.parent.name} | {met} | {len(faults)} |", *faults, sep="\n    ", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
