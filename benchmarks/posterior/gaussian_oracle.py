"""How far the diffusion solvers are from an exact posterior: writes docs/design/oracle_table.md, or compares with it.

OMP_NUM_THREADS=1 python benchmarks/posterior/gaussian_oracle.py
OMP_NUM_THREADS=1 python benchmarks/posterior/gaussian_oracle.py --check  # are the figures those of the page?
OMP_NUM_THREADS=1 python benchmarks/posterior/gaussian_oracle.py --samples 256 --out runs/oracle.md
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import math
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

os.environ["ATEN_CPU_CAPABILITY"] = "avx2"  # before torch: the same noise from the same seed on newer CPUs too
import torch
from oracle_problem import NOISE, SEEN, SIZE, SLICES, Oracle, StackOracle
from oracle_solvers import POINTS, WHY, law_of, points, solvers, stacked
from sampler_order import order_table

from medrecon.solvers.base import Solver

PAGE = Path(__file__).parents[2] / "docs" / "design" / "oracle_table.md"
TOLERANCE = 0.05
"""What figures may differ by: rounding grows along a trajectory."""
INTRODUCTION = f"""\
Written by `benchmarks/posterior/gaussian_oracle.py`; `--check` compares. A Gaussian of {SIZE} × {SIZE} pixels with
a correlation of 1.5 pixels, {SEEN:.0%} of them seen with noise of {NOISE:g} (prior: 1), an exact denoiser, from pure
noise; one problem, {{samples}} samples of each (DDS and ReSample an eighth). Errors of the mean are relative to the
posterior's deviation, as is the spread: 1 is right. Calls are those of the denoiser for a sample; `mmps`, `dlg`, `dps`,
`psld` and `pigdm` also go back through it.
"""


def sampled(samples: int, index: int) -> str:
    """Return the row of a solver that draws samples."""
    oracle = Oracle.draw(0)
    solver, count = next(itertools.islice(solvers(oracle.prior, samples), index, None))
    centre, spread, calls = oracle.errors(solver, count)
    cells = [solver.name, law_of(solver), solver.steps, f"{calls:g}", f"{centre:.2f}", f"{count**-0.5:.2f}"]
    return "| " + " | ".join(map(str, [*cells, f"{spread:.2f}"])) + " |"


def pointed(index: int) -> str:
    """Return the row of a solver that returns a point."""
    oracle = Oracle.draw(0)
    solver = next(itertools.islice(points(oracle.prior), index, None))
    error, calls = oracle.point(solver)
    level = getattr(solver, "sigma", getattr(solver, "end", 0.0))
    return f"| {solver.name} | {level:g} | {calls} | {error:.3f} |"


def coupled(index: int) -> str:
    """Return the row of a solver of stacks: where slices miss different pixels, and where all miss the same."""
    each = [StackOracle.draw(0, alike=alike) for alike in (False, True)]
    solver = next(itertools.islice(stacked(each[0].prior), index, None))
    label = solver.name + (f", rho {rho:g}" if (rho := getattr(solver, "rho", None)) is not None else "")
    return f"| {label} | " + " | ".join(f"{oracle.error(solver):.2f}" for oracle in each) + " |"


def tasks(samples: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the rows to be made, each with its table."""
    prior = Oracle.draw(0).prior
    for index, _ in enumerate(solvers(prior, samples)):
        yield "samples", partial(sampled, samples, index)
    for index, _ in enumerate(points(prior)):
        yield "points", partial(pointed, index)
    for index, _ in enumerate(stacked(prior)):
        yield "stacks", partial(coupled, index)
    yield "orders", order_table


def rows_of(samples: int) -> dict[str, list[str]]:
    """Return the rows of each table, made by as many processes as there are cores."""
    found: dict[str, list[str]] = {"samples": [], "points": [], "stacks": [], "orders": []}
    kinds, calls = zip(*tasks(samples), strict=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, initializer=partial(torch.set_num_threads, 1)) as pool:
        for kind, row in zip(kinds, pool.map(_called, calls), strict=True):
            print(row, flush=True)
            found[kind].append(row)
    order = [cls.name for cls in WHY]
    found["samples"].sort(key=lambda row: order.index(row.split(" | ")[0].removeprefix("| ")))
    return found


def _called(task: Callable[[], str]) -> str:
    return task()


def lines(cls: type[Solver]) -> int:
    return len(Path(inspect.getfile(cls)).read_text().splitlines())


def page(samples: int) -> str:
    """Return the page, in Markdown."""
    rows = rows_of(samples)
    reasons = [f"| {cls.name} | {lines(cls)} | {why} |" for cls, why in (WHY | POINTS).items()]
    blocks = [
        "# Posterior samplers against an exact posterior\n",
        INTRODUCTION.format(samples=samples),
        "| solver | sampler | levels | calls | error of the mean | of it by chance | spread |",
        "|---|---|---|---|---|---|---|",
        *rows["samples"],
        "\nSolvers that return a point:\n",
        "| solver | (last) level | calls | error of the mean |\n|---|---|---|---|",
        *rows["points"],
        f"\nStacks of {SLICES} slices that are correlated with their neighbours; the error of the mean where slices "
        "miss\ndifferent pixels, and where all miss the same:\n",
        "| solver | different | the same |\n|---|---|---|",
        *rows["stacks"],
        "\nSamplers without data, against the flow of a Gaussian: how fast the error falls with the number of steps.\n",
        *rows["orders"],
        "\n| solver | lines of its file | why it is not exact |\n|---|---|---|",
        *reasons,
    ]
    return "\n".join(blocks) + "\n"


def differences(ours: str, theirs: str) -> list[str]:
    """Return the rows whose words are not the same, or whose figures differ by more than `TOLERANCE`."""
    number = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w.])")
    mine, yours = ([line for line in text.splitlines() if line.startswith("|")] for text in (ours, theirs))
    if len(mine) != len(yours):
        return [f"{len(mine)} rows in place of {len(yours)}: write the page again"]
    wrong = []
    for a, b in zip(mine, yours, strict=True):
        figures = zip(number.findall(a), number.findall(b), strict=False)
        near = all(math.isclose(float(x), float(y), rel_tol=TOLERANCE, abs_tol=TOLERANCE) for x, y in figures)
        if number.sub("", a) != number.sub("", b) or not near:
            wrong.append(f"{a}\n  on the page: {b}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page says otherwise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = page(options.samples)
    if options.check:
        wrong = differences(text, options.out.read_text())
        raise SystemExit("\n".join(wrong) or 0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
