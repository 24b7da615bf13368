"""Mutation testing of the core: one planted fault at a time in a copy of the package, and the tests that concern it.

python benchmarks/robustness/mutants.py -o out --count 250                  # goes on where it was stopped
python benchmarks/robustness/mutants.py -o out --only medrecon/core operators/ct

out/results.jsonl has a line per mutant, out/mutants.json and out/mutants.md all of them in tables. Faults are drawn by
`--seed` from all places of CORE (faults.py says what is a fault); a fault stays drawn as the code around it
changes, and is tried again if its file changed, or if it had survived and the tests changed. Of the tests in
`concerned` those are run that call the faulty function, known from a clean run of each under a trace.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from faults import Fault, compiles, faults, rank
from workshop import ROOT, Choose, Run, Watch, Workshop

ROOMS = "core numerics geometry sampling kspace coils quality diffusion formats"
CORE = (
    *(f"medrecon/{room}" for room in ROOMS.split()),
    *("medrecon/pipeline/mri_problem.py", "medrecon/pipeline/ct_problem.py"),
    *("operators", "models/prior.py", "models/values.py", "models/denoiser.py", "models/adapters", "models/exact"),
)
LEFT_OUT = {
    "medrecon/core/discover.py": "finds plug-ins",
    "medrecon/core/atomic.py": "writes files",
    "medrecon/core/stage.py": "writes files",
    "medrecon/core/progress.py": "shows progress",
    "medrecon/quality/picture.py": "draws",
    "operators/check.py": "tests themselves",
}
BASE = "base algebra autograd calls normal repeated views"
ALSO = {
    "medrecon/core/scan": "tests/formats/test_measurement_file.py tests/pipeline/test_pipeline.py",
    "medrecon/core/measurement.py": "tests/diffusion/test_consistency.py tests/solvers/test_solvers_classical.py",
    "medrecon/diffusion": "tests/solvers/diffusion tests/models/test_pixel_space.py",
    "medrecon/formats": "tests/acquisition/test_helical.py",
    "medrecon/geometry": "tests/operators/ct tests/formats/ct/test_ct_pd.py tests/pipeline/test_cone_pipeline.py",
    "medrecon/kspace": "tests/solvers/mri",
    "medrecon/coils": "tests/solvers/mri tests/pipeline/test_mri_pipeline.py",
    "medrecon/numerics": "tests/operators/test_operator_contract.py tests/solvers/test_solvers_classical.py "
    "tests/coils/test_espirit.py tests/corrections/test_beam_hardening.py",
    "medrecon/sampling": "tests/simulate",
    "operators": "tests/operators/test_operator_contract.py",
    **{f"operators/{name}.py": "tests/operators/test_operator_contract.py" for name in BASE.split()},
    "operators/ct/operator.py": "tests/solvers/test_solvers_classical.py",
    "operators/mri": "tests/solvers/mri/test_solvers_mri.py",
    "operators/mri/line_prox.py": "tests/operators/mri/test_mri_operator.py",
    "operators/mri/self_consistency.py": "tests/solvers/mri/test_spirit.py",
    "models": "tests/diffusion tests/models/test_prior.py",
    "medrecon/pipeline/ct_problem.py": "tests/cli/test_cli.py",
    "models/exact/gaussian.py": "tests/diffusion/test_samplers.py tests/diffusion/test_process.py",
    "models/values.py": "tests/models/test_prior.py tests/diffusion/test_consistency.py",
    "models/adapters/discrete_vp.py": "tests/diffusion/test_samplers.py",
}
"""Tests of a file besides those that lie where it lies, by the start of its path."""
PATIENCE = 240
"""CPU seconds that a file of tests may take under the trace; one that takes longer, since it trains, is left out."""


def concerned(path: str, root: Path) -> list[list[str]]:
    """Test files of a source file, in turn: those of its name or named, those beside them, others."""
    room, name = Path(path.removeprefix("medrecon/")).parent, Path(path).stem.lstrip("_")
    while not any((root / "tests" / room).glob("test_*.py")):
        room = room.parent
    beside = sorted((root / "tests" / room).glob("test_*.py"))
    also = [root / t for start, tests in ALSO.items() if path.startswith(start) for t in tests.split()]
    more = [f for t in also for f in (sorted(t.rglob("test_*.py")) if t.is_dir() else [t]) if f.exists()]
    every = dict.fromkeys([*beside, *more])
    named = {root / test for test in ALSO.get(path, "").split()}
    like = [t for t in every if name in t.stem or t.stem.removeprefix("test_") in name]
    same = [t for t in like if t.stem == f"test_{name}"]
    own = [t for t in every if t in named or t in (same or like)]
    turns = own, [t for t in beside if t not in own], [t for t in every if t not in {*own, *beside}]
    return [[str(f.relative_to(root)) for f in files] for files in turns]


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()[:16]


class Campaign:
    """Tries the drawn faults one after the other and writes down what became of each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.shop, self.kernels = Workshop(folder), folder / "kernels"
        self.clean: dict[str, dict[str, tuple[float, list[str]]]] = {}
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        self.known = {r["place"]: r for r in map(json.loads, lines)}

    def baseline(self, test: str) -> dict[str, tuple[float, list[str]]]:
        """CPU seconds and called functions of the tests of a file on the package as it is; kept between campaigns.

        Raises:
            SystemExit: they fail without a fault.
        """
        if test not in self.clean:
            file = self.folder / "clean" / f"{digest(self.shop.copy / test)}.json"
            file.parent.mkdir(exist_ok=True)
            if not file.exists():
                sys.dont_write_bytecode = False
                run = self.shop.test([test], PATIENCE, self.kernels, Watch(self.shop.copy, file))
                sys.dont_write_bytecode = True
                if run.outcome == "timeout":
                    file.write_text("{}")
                elif run.outcome != "passed":
                    file.unlink(missing_ok=True)
                    sys.exit(f"{test} fails without a fault: {run}\n{self.shop.log.read_text()[-3000:]}")
                print(f"{run.outcome} {run.seconds:6.1f} s  {test}", flush=True)
            self.clean[test] = json.loads(file.read_text())
        return self.clean[test]

    def chosen(self, fault: Fault, files: list[str], compiled: bool) -> dict[str, float]:
        """Tests of the files that call the faulty function, the quick first; all, if that is not known."""
        wanted, times = f"{fault.path}:{fault.where}", list[tuple[float, dict[str, float]]]()
        everything = compiled or not fault.inside
        name = next((part for part in reversed(fault.where.split(".")) if not part.startswith("_")), fault.where)
        for file in files:
            clean = self.baseline(file)
            tests = {t: s for t, (s, called) in clean.items() if everything or wanted in called}
            if not tests and name in (self.shop.copy / file).read_text():  # called as the file is imported, maybe
                tests = {t: s for t, (s, _) in clean.items()}
            times.append((sum(tests.values()), dict(sorted(tests.items(), key=lambda item: item[1]))))
        return {test: s for _, tests in sorted(times, key=lambda t: t[0]) for test, s in tests.items()}

    def attempt(self, fault: Fault, files: list[str]) -> dict[str, object]:
        """Plant a fault and run those tests of the files that call the faulty function, until one fails."""
        target, run = self.shop.copy / fault.path, Run("passed", 0)
        source, kernels = target.read_bytes(), self.kernels
        compiled = b"numba" in source or "kernels" in fault.path
        if compiled:  # callers keep compiled copies of what they call
            kernels = self.folder / "mutated_kernels"
            shutil.rmtree(kernels, ignore_errors=True)
        if tests := self.chosen(fault, files, compiled):
            more = 120 if compiled else 10
            target.write_bytes(fault.plant(source))
            try:
                wanted = dict.fromkeys(test.split("::")[0] for test in tests)
                run = self.shop.test(wanted, more + 3 * sum(tests.values()), kernels, Choose(tests, more))
            finally:
                target.write_bytes(source)
                os.utime(target, (1e9, 1e9))
        outcome = {"passed": "survived", "failed": "killed"}.get(run.outcome, run.outcome)
        return asdict(fault) | {"outcome": outcome, "by": run.by, "tests": len(tests), "seconds": round(run.seconds, 1)}

    def run(self, drawn: list[Fault]) -> None:
        """Try all faults on the tests of their own, then the survivors on those beside these, then on others."""
        for turn in range(3):
            for number, fault in enumerate(drawn, 1):
                turns = concerned(fault.path, self.shop.copy)
                state = {
                    "file": digest(self.shop.copy / fault.path),
                    "suite": digest(*(self.shop.copy / test for tests in turns for test in tests)),
                }
                before = self.known.get(fault.place, {})
                dead = before.get("file") == state["file"] and before["outcome"] != "survived"
                if dead or (before.items() >= state.items() and before["turn"] >= turn):
                    self.known[fault.place] = before | asdict(fault)
                    continue
                result = self.attempt(fault, turns[turn]) | state | {"turn": turn}
                self.known[fault.place] = result
                with self.results.open("a") as f:
                    f.write(json.dumps(result) + "\n")
                told = f"{fault.path}:{fault.line} {fault.before}  ->  {fault.after}"
                print(f"{turn} {number}/{len(drawn)} {result['outcome']} in {result['seconds']} s: {told}", flush=True)


def tables(results: list[dict[str, object]]) -> str:
    """Markdown: outcomes by room and by kind of fault, and the survivors."""
    columns = ("killed", "timeout", "survived")
    lines = []
    for title, key in (("Where", lambda r: str(Path(str(r["path"])).parent)), ("Fault", lambda r: str(r["kind"]))):
        lines += [f"| {title} | Mutants | Killed | Out of time | Survived |", "|---|---|---|---|---|"]
        for group in [*sorted({key(r) for r in results}), "all"]:
            count = Counter(str(r["outcome"]) for r in results if group in (key(r), "all"))
            lines.append(f"| {group} | {count.total()} | " + " | ".join(str(count[c]) for c in columns) + " |")
        lines.append("")
    lines += ["| Place | Fault | Line | With the fault |", "|---|---|---|---|"]
    for r in results:
        if r["outcome"] != "killed":
            before, after = (str(r[k]).replace("|", "\\|") for k in ("before", "after"))
            lines.append(f"| {r['path']}:{r['line']} ({r['outcome']}) | {r['kind']} | `{before}` | `{after}` |")
    return "\n".join(lines) + "\n"


def draw(count: int, seed: int, only: list[str]) -> list[Fault]:
    """The first `count` faults of CORE in the order of a seed, and of them those in `only`."""
    files = [f for part in CORE for f in [ROOT / part, *sorted((ROOT / part).rglob("*.py"))] if f.is_file()]
    paths = [path for path in (str(f.relative_to(ROOT)) for f in files) if path not in LEFT_OUT]
    ordered = sorted((f for p in paths for f in faults(p, (ROOT / p).read_bytes())), key=lambda f: rank(f, seed))
    sound = (f for f in ordered if compiles(f.plant((ROOT / f.path).read_bytes())))
    drawn = [fault for fault, _ in zip(sound, range(count))]
    wanted = only or [""]
    turns = {f.place: next((n for n, o in enumerate(wanted) if f.path.startswith(o)), -1) for f in drawn}
    drawn = [f for f in drawn if turns[f.place] >= 0]
    return sorted(drawn, key=lambda f: ("kernels" in f.path, turns[f.place], paths.index(f.path)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="starts of paths, first things first")
    parser.add_argument("--list", action="store_true", help="say what would be tried")
    options = parser.parse_args()
    drawn = draw(options.count, options.seed, options.only)
    if options.list:
        print(*(f"{f.path}:{f.line} {f.kind}: {f.before}  ->  {f.after}" for f in drawn), sep="\n")
        return
    os.nice(19)
    campaign = Campaign(options.output.resolve())
    campaign.run(drawn)
    results = [campaign.known[f.place] for f in drawn]
    (options.output / "mutants.json").write_text(json.dumps(results, indent=1))
    (options.output / "mutants.md").write_text(tables(results))
    print(Counter(str(r["outcome"]) for r in results))


if __name__ == "__main__":
    main()
