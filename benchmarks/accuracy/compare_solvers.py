"""Every solver on the corpus's test subjects in every case of the big table. Resumes; `solver_table.py` reads the file.

    python benchmarks/accuracy/compare_solvers.py --out runs/table.jsonl --shard 1/2 &
    python benchmarks/accuracy/compare_solvers.py --out runs/table.jsonl --shard 2/2
    python benchmarks/accuracy/compare_solvers.py --out runs/try.jsonl --validation --cases "MRI 8x" --solvers tv dds

Each run is one solver, with its default settings, on the slices of one series, in a process of its own: its peak memory
is what that process had at most, above what the scan and the program take before it. Seconds are those of the CPU: with
one thread as long as it takes on a core that is not shared. A line of the file is a run, also one that failed or took
longer than LIMIT. Solvers that take minutes a slice run on the first `--few` series alone, and in two cases.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_cases import CASES, LATENT, SUBJECTS, TABLE, VALIDATION, person, prior_of, reference, simulate, subject

from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.pipeline import reconstruct
from medrecon.pipeline.choose import solver_classes, suitable
from medrecon.quality.evaluate import evaluate

SIZE = 256
"""Rows of the CT reconstructions."""
SLICES = {"CT 30 views": 2}
"""Of a series, 1 in the other cases."""
SERIES = {"MRI 34 spokes": 4}
"""Of a modality, at most, where an operator takes long."""
HARD = ("CT 30 views", "MRI 8x")
"""Those in which slow solvers run too; the first of the table."""
LIMIT = 600.0
"""Seconds of a run, at most."""
SLOW = ("psld", "afdps", "dlg", "mmps")
"""As slow as those that say so themselves, in latent priors or at their usual number of samples."""
TOO_SLOW = ("resample-paper", "resample-reference", "joint")
"""Run only where named: ten minutes a slice of 128 x 128 and more; the last is for artefacts, which no case has."""


@functools.lru_cache(maxsize=1)
def measured(case: str, series: str, slices: int) -> tuple[Volume, Scan]:
    """The reference, and the simulated measurement."""
    modality = CASES[case]["modality"]
    volume = subject(series, modality, slices)
    return reference(volume, modality, SIZE), simulate(case, volume, SIZE)


def row(case: str, series: str, solver: str, prior: str | None, slices: int) -> dict[str, Any]:
    """Figures of one solver on one series."""
    truth, scan = measured(case, series, slices)
    before, began = _memory("VmRSS"), time.process_time()
    one = None if solver_classes()[solver].couples else 1
    image, report = reconstruct(scan, solver, prior=prior, batch=one)
    seconds, peak = time.process_time() - began, _memory("VmHWM") - before
    scores = evaluate(image, truth)
    network = report.get("network_calls_per_slice", {})
    figures = {
        "psnr_db": scores["psnr_db"],
        "ssim": scores["ssim"],
        "rmse": scores["rmse"],
        "chi2": report["chi2"],
        "seconds": seconds / slices,
        "operator_calls": sum(report["operator_calls_per_slice"].values()),
        "network_calls": network.get("denoiser", 0),
        "peak_mb": peak / 1e6,
    }
    if CASES[case]["modality"] == "ct":
        soft = scores["windows"]["soft"]
        figures |= {"soft_psnr_db": soft["psnr_db"], "soft_rmse": soft["rmse"], "soft_bias": soft["bias"]}
    return figures | ({"failed": report["failed"]} if "failed" in report else {})


def _memory(line: str) -> int:
    """Bytes of this process by a line of its status: VmRSS now, VmHWM at most."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def alone(case: str, series: str, solver: str, prior: str | None, slices: int) -> dict[str, Any]:
    """The same in a process of its own; an error, or too long a run, is a figure of it too."""
    what = {"case": case, "series": series, "subject": person(series), "slices": slices}
    try:
        measured(case, series, slices)  # here, once for all solvers: the process is a copy of this one
    except ValueError as error:  # a case that this series cannot have, such as 12 calibration lines of 11
        return what | {"error": str(error)[:300]}
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_send, args=(send, case, series, solver, prior, slices), daemon=True
    )
    process.start()
    send.close()
    try:
        figures = receive.recv() if receive.poll(LIMIT) else {"error": f"took longer than {LIMIT:g} s"}
    except EOFError:
        figures = {"error": "its process died"}
    process.kill()
    process.join()
    return what | figures


def _send(send: Connection, *what: Any) -> None:
    try:
        send.send(row(*what))
    except Exception as error:  # of whatever kind: it stands in the table
        send.send({"error": f"{type(error).__name__}: {error}"[:300]})


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, str, str, str | None, int]]:
    """Case, series, solver, prior and slices of all runs of this shard."""
    subjects = VALIDATION if options.validation else SUBJECTS
    shard, shards = options.shard
    most = {case: min(options.series, SERIES.get(case, options.series)) for case in options.cases}
    places = [(case, series) for case in most for series in subjects[CASES[case]["modality"]][: most[case]]]
    for case, series in places[shard - 1 :: shards]:
        modality = CASES[case]["modality"]
        slices = 1 if options.validation else SLICES.get(case, 1)
        few = list(subjects[modality]).index(series) < options.few
        for solver in solvers(case, options.solvers):
            cls = solver_classes()[solver]
            if (cls.slow or solver in SLOW) and not (few and case in HARD):
                continue
            yield case, series, solver, prior_of(solver, modality) if cls.needs_prior else None, slices
            if solver in LATENT:
                yield case, series, solver, f"{modality}_pixel", slices


def solvers(case: str, named: list[str] | None) -> list[str]:
    """Solvers that do a case, those without a prior first."""
    scan = _example(case)
    usual = suitable(scan)
    slow = [name for name, cls in solver_classes().items() if cls.slow and scan.modality in cls.modalities]
    every = [name for name in (*usual, *slow) if name not in TOO_SLOW]
    return [name for name in (*usual, *slow) if name in named] if named else every


@functools.cache
def _example(case: str) -> Scan:
    """A scan of the case's kind, whatever it shows: solvers are chosen by it."""
    return simulate(case, subject(VALIDATION[CASES[case]["modality"]][0], CASES[case]["modality"], 1), 64)


def read(path: Path) -> list[dict[str, Any]]:
    """All runs of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; gets what is new")
    parser.add_argument("--shard", type=_shard, default=(1, 1), help="1/2: the first half of all, 2/2: the other")
    parser.add_argument("--cases", nargs="*", default=list(TABLE), choices=list(CASES))
    parser.add_argument("--solvers", nargs="*", help="default: all that apply")
    parser.add_argument("--few", type=int, default=2, help="series a modality for solvers that take minutes a slice")
    parser.add_argument("--series", type=int, default=11, help="a case; the first 11 of MRI are of 11 subjects")
    parser.add_argument("--validation", action="store_true", help="validation slices in place of test subjects")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r["case"], r["series"], r["solver"], r["prior"]) for r in read(options.out)}
    for case, series, solver, prior, slices in jobs(options):
        if (case, series, solver, prior) in done:
            continue
        figures = alone(case, series, solver, prior, slices) | {"solver": solver, "prior": prior}
        with options.out.open("a") as file:  # one write a line: shards share the file
            file.write(json.dumps(figures) + "\n")
        print(json.dumps(figures), flush=True)


def _shard(text: str) -> tuple[int, int]:
    shard, _, shards = text.partition("/")
    if not 1 <= int(shard) <= int(shards):
        raise argparse.ArgumentTypeError(f"expected a shard such as 1/2, got {text}")
    return int(shard), int(shards)


if __name__ == "__main__":
    main()
