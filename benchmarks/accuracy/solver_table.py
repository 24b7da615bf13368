"""Tables of what compare_solvers.py measured: who is best where, then every solver in every case.

    python benchmarks/accuracy/solver_table.py runs/table.jsonl
    python benchmarks/accuracy/solver_table.py runs/table.jsonl --write docs/results.md

Means and deviations are over subjects, whose series are averaged first. Differences are of PSNR, over the subjects that
both solvers were run on; p is of Wilcoxon's signed-rank test, corrected for the number of solvers in the case (Holm).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from paired import Paired, holm, mean_and_deviation, paired, subject_means
from simulated_cases import CASES, prior_of

Row = dict[str, Any]
COLUMNS: tuple[tuple[str, str, Callable[[float, float], str]], ...] = (
    ("psnr_db", "PSNR dB", lambda mean, sd: f"{mean:.2f} ± {sd:.1f}"),
    ("ssim", "SSIM", lambda mean, sd: f"{mean:.3f} ± {sd:.2f}"),
    ("rmse", "RMSE HU", lambda mean, sd: f"{mean:.1f} ± {sd:.0f}"),
    ("soft_rmse", "soft RMSE HU", lambda mean, sd: f"{mean:.1f} ± {sd:.0f}"),
    ("soft_bias", "soft bias HU", lambda mean, sd: f"{mean:.1f}"),
    ("chi2", "χ²/m", lambda mean, sd: f"{mean:.2f}"),
    ("seconds", "CPU s", lambda mean, sd: f"{mean:.1f}"),
    ("network_calls", "denoiser calls", lambda mean, sd: f"{mean:.0f}"),
    ("operator_calls", "operator calls", lambda mean, sd: f"{mean:.0f}"),
    ("peak_mb", "peak MB", lambda mean, sd: f"{mean:.0f}"),
)
HU = ("rmse", "soft_rmse", "soft_bias")
RESAMPLE = "resample"


def label_of(row: Row) -> str:
    """Return the solver's name, with its prior where it is another than the usual one of the solver."""
    modality = CASES[row["case"]]["modality"]
    usual = row["prior"] is None or row["prior"] == prior_of(row["solver"], modality)
    return row["solver"] if usual else f"{row['solver']} ({row['prior']})"


class Case:
    """What was measured in a case."""

    def __init__(self, name: str, rows: list[Row]) -> None:
        self.name, self.rows = name, [row for row in rows if row["case"] == name]
        self.solvers = list(dict.fromkeys(label_of(row) for row in self.rows if "error" not in row))
        self.most = max((len(self.means(s, "psnr_db")) for s in self.solvers), default=0)
        whole = [s for s in self.solvers if len(self.means(s, "psnr_db")) == self.most]
        self.whole = sorted(whole, key=self.psnr, reverse=True)
        classical = [s for s in self.whole if all(row["prior"] is None for row in self.of(s))]
        self.classical = classical[0] if classical else None

    def of(self, solver: str) -> list[Row]:
        """Return the runs of a solver that ended well."""
        return [row for row in self.rows if label_of(row) == solver and "error" not in row]

    def means(self, solver: str, key: str, series: set[str] | None = None) -> dict[str, float]:
        """Return a figure of each subject, from all of its series or from some."""
        rows = [row for row in self.of(solver) if key in row and (series is None or row["series"] in series)]
        return subject_means((row["subject"], row[key]) for row in rows)

    def psnr(self, solver: str) -> float:
        return mean_and_deviation(list(self.means(solver, "psnr_db").values()))[0]

    def against(self, other: str | None) -> dict[str, tuple[Paired, float]]:
        """Return all solvers against one, on the series that both were run on: the comparison and its corrected p."""
        if other not in self.solvers:
            return {}
        series = {
            s: {row["series"] for row in self.of(s)} & {row["series"] for row in self.of(other)} for s in self.solvers
        }
        rivals = [s for s in self.solvers if s != other and series[s]]
        found = [paired(*(self.means(one, "psnr_db", series[s]) for one in (s, other))) for s in rivals]
        return dict(zip(rivals, zip(found, holm([f.p for f in found]), strict=True), strict=True))

    def table(self) -> list[str]:
        """Return a line for each solver, the best first, those run on fewer subjects and those that failed last."""
        comparisons = [self.against(self.classical), self.against(RESAMPLE)]
        fewer = sorted(set(self.solvers) - set(self.whole), key=self.psnr, reverse=True)
        lines = []
        for solver in (*self.whole, *fewer):
            mine = self.of(solver)
            cells = [self.name, solver, f"{len(self.means(solver, 'psnr_db'))} × {mine[0]['slices']}"]
            for key, _, shown in COLUMNS:
                mean, sd = mean_and_deviation(list(self.means(solver, key).values()))
                absent = math.isnan(mean) or (key in HU and CASES[self.name]["modality"] != "ct")
                cells.append("" if absent else shown(mean, sd).replace(" ± nan", ""))
            cells += [_difference(c[solver]) if solver in c else "" for c in comparisons]
            lines.append("| " + " | ".join(cells) + " |")
        return lines + [f"| {self.name} | {text} |" for text in self.failures()]

    def failures(self) -> list[str]:
        """Return what went wrong, counted."""
        wrong = [f"{label_of(row)} | {row['error']}" for row in self.rows if "error" in row]
        return [f"{text} ({wrong.count(text)} series)" for text in dict.fromkeys(wrong)]

    def summary(self) -> str:
        """Return the line of the table of winners."""
        best, classical = self.whole[0], self.classical or ""
        cells = [self.name, str(self.most), f"`{best}`, {self.psnr(best):.2f} dB"]
        cells += [f"`{classical}`, {self.psnr(classical):.2f} dB" if classical else ""]
        comparison = self.against(self.classical)
        ours = max((s for s in self.whole if s.startswith(RESAMPLE)), key=self.psnr, default=None)
        for solver in (best, ours):
            cells.append(_difference(comparison[solver]) if solver in comparison else "")
        cells.append(f"{comparison[ours][0].least:+.2f} dB" if ours in comparison else "")
        return "| " + " | ".join([*cells[:5], f"`{ours}` {cells[5]}" if ours else "", cells[6]]) + " |"


def _difference(found: tuple[Paired, float]) -> str:
    comparison, p = found
    return f"{comparison.difference:+.2f} (p {p:.2g}{'' if comparison.subjects > 5 else f', n {comparison.subjects}'})"


def tables(rows: list[Row]) -> str:
    """Return both tables as Markdown."""
    cases = [Case(name, rows) for name in CASES if any(row["case"] == name and "error" not in row for row in rows)]
    first = ("case", "subjects", "best", "best without a prior", "gain, dB", "ReSample's gain, dB", "its worst subject")
    titles = [title for _, title, _ in COLUMNS]
    second = ("case", "solver", "subjects × slices", *titles, "over best without a prior, dB", "over `resample`, dB")
    parts = []
    for head, lines in ((first, [c.summary() for c in cases]), (second, [line for c in cases for line in c.table()])):
        parts.append("\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *lines]))
    return "\n\n".join(parts)


def written(page: str, parts: list[str]) -> str:
    """Return a page with its tables replaced, those between <!-- winners --> or <!-- table --> and <!-- end -->.

    Raises:
        ValueError: the page lacks a mark.
    """
    for mark, part in zip(("winners", "table"), parts, strict=True):
        pattern = rf"(<!-- {mark} -->\n).*?(\n<!-- end -->)"
        page, count = re.subn(pattern, functools.partial(_between, part), page, count=1, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has no <!-- {mark} --> ... <!-- end -->")
    return page


def _between(part: str, found: re.Match[str]) -> str:
    return f"{found[1]}{part}{found[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="JSON lines of compare_solvers.py")
    parser.add_argument("--write", type=Path, help="page whose tables are replaced, such as docs/results.md")
    options = parser.parse_args()
    text = tables([json.loads(line) for line in options.file.read_text().splitlines()])
    print(text)
    if options.write:
        options.write.write_text(written(options.write.read_text(), text.split("\n\n")))


if __name__ == "__main__":
    main()
