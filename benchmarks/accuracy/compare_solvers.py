"""Every solver on the corpus's test subjects: CT 60 and 30 views, low dose; MRI on a grid, 4x, 8x and partial Fourier,
along spokes and spirals. Resumes; prints the table.

    python benchmarks/accuracy/compare_solvers.py --out runs/compare.json --slices 4
    python benchmarks/accuracy/compare_solvers.py --out runs/mri.json --slices 1 --pictures runs/mri
    python benchmarks/accuracy/compare_solvers.py --out runs/modes.json --size 128 --modes fast paper
    python benchmarks/accuracy/compare_solvers.py --out runs/pixel.json --solvers dds --prior ct_pixel
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_cases import CASES, SUBJECTS, reference, simulate, subject

from medrecon.core.scan import Scan
from medrecon.core.volume import Volume
from medrecon.pipeline import reconstruct
from medrecon.pipeline.choose import suitable
from medrecon.quality.evaluate import evaluate
from medrecon.quality.picture import comparison, display_window


@functools.lru_cache(maxsize=1)
def measured(case: str, path: str, slices: int, size: int) -> tuple[Volume, Scan]:
    """The subject and its simulated measurement."""
    volume = subject(path, CASES[case]["modality"], slices)
    return volume, simulate(case, volume, size)


def label_of(solver: str, mode: str | None, prior: str | None) -> str:
    """Of a row of the table."""
    return solver + "".join(f" ({word})" for word in (mode, prior and Path(prior).stem) if word)


def run(
    case: str, path: str, solver: str, mode: str | None, prior: str | None, slices: int, size: int
) -> tuple[dict[str, Any], Tensor]:
    """One row, figures of one solver on one subject, and the first slice."""
    settings = CASES[case]
    volume, scan = measured(case, path, slices, size)
    image, report = reconstruct(scan, solver, mode=mode, prior=prior)
    truth = reference(volume, settings["modality"], size)
    scores = evaluate(image, truth)
    row = {
        "case": case,
        "subject": Path(path).name,
        "solver": label_of(solver, mode, prior),
        "slices": slices,
        "psnr_db": scores["psnr_db"],
        "ssim": scores["ssim"],
        "rmse": scores["rmse"],
        "chi2": report["chi2"],
        "seconds": report["seconds"] / slices,
        "operator_calls": sum(report["operator_calls_per_slice"].values()),
        "network_calls": sum(report.get("network_calls_per_slice", {}).values()),
    }
    if settings["modality"] == "ct":
        soft = scores["windows"]["soft"]
        row |= {"soft_psnr_db": soft["psnr_db"], "soft_rmse": soft["rmse"], "soft_bias": soft["bias"]}
    return row, image.data[0]


def draw(
    case: str, path: str, images: dict[str, tuple[dict[str, Any], Tensor]], folder: Path, size: int, slices: int
) -> None:
    """All solvers of a case on a subject beside the reference, the first slice."""
    volume, _ = measured(case, path, slices, size)
    truth = reference(volume, CASES[case]["modality"], size)
    window, error = display_window(truth)
    name = f"{case} {Path(path).name}"
    comparison(
        truth.data[0].float(),
        {label: image for label, (_, image) in images.items()},
        folder / f"{name.replace(' ', '_').replace('/', '-')}.png",
        title=name,
        units=truth.units,
        window=window,
        error=error,
        captions={label: f"{row['psnr_db']:.1f} dB" for label, (row, _) in images.items()},
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, mean over subjects."""
    head = (
        "case",
        "solver",
        "subjects",
        "PSNR dB",
        "soft PSNR dB",
        "SSIM",
        "RMSE HU",
        "soft RMSE HU",
        "soft bias HU",
        "χ²/m",
        "s/slice",
        "operator calls",
        "network calls",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    hu = ("soft_psnr_db", "rmse", "soft_rmse", "soft_bias")
    keys = (*hu, "psnr_db", "ssim", "chi2", "seconds", "operator_calls", "network_calls")
    for case in CASES:
        for solver in dict.fromkeys(r["solver"] for r in rows if r["case"] == case):
            mine = [r for r in rows if r["case"] == case and r["solver"] == solver]
            mean = {k: sum(r.get(k, math.nan) for r in mine) / len(mine) for k in keys}
            ct = CASES[case]["modality"] == "ct"
            errors = [f"{mean[k]:.1f}" if ct else "" for k in hu[1:]]
            cells = [
                case,
                solver,
                f"{len(mine)} × {mine[0]['slices']}",
                f"{mean['psnr_db']:.2f}",
                f"{mean['soft_psnr_db']:.2f}" if ct else "",
                f"{mean['ssim']:.4f}",
                *errors,
                f"{mean['chi2']:.2f}",
                f"{mean['seconds']:.1f}",
                f"{mean['operator_calls']:.0f}",
                f"{mean['network_calls']:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def jobs(case: str, path: str, options: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Solvers, with their modes, to run on a subject."""
    if options.modes:
        first = path == SUBJECTS[CASES[case]["modality"]][0]
        return [("resample", mode) for mode in options.modes] if first else []
    known = suitable(measured(case, path, options.slices, options.size)[1])
    return [(name, None) for name in known if not options.solvers or name in options.solvers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="rows of the CT reconstructions")
    parser.add_argument("--modes", nargs="*", help="these modes of resample, on one slice of the first subject")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--solvers", nargs="*", help="default: all that apply")
    parser.add_argument("--prior", help="name or file, in place of the modality's own; with --solvers dds, say")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of what is run; they show corpus data")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    for case, path in ((c, p) for c in options.cases for p in SUBJECTS[CASES[c]["modality"]]):
        images: dict[str, tuple[dict[str, Any], Tensor]] = {}
        for name, mode in jobs(case, path, options):
            label = label_of(name, mode, options.prior)
            if any((r["case"], r["subject"], r["solver"]) == (case, Path(path).name, label) for r in rows):
                continue
            slices = 1 if mode else options.slices
            images[label] = run(case, path, name, mode, options.prior, slices, options.size)
            rows.append(images[label][0])
            options.out.write_text(json.dumps(rows, indent=1))
            print(json.dumps(rows[-1]), flush=True)
        if options.pictures and images:
            options.pictures.mkdir(parents=True, exist_ok=True)
            draw(case, path, images, options.pictures, options.size, 1 if options.modes else options.slices)
    print(table(rows))


if __name__ == "__main__":
    main()
