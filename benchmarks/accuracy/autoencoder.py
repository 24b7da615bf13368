"""The autoencoders of the shipped priors: round trip per subject, bias in organs, time; and what bfloat16 would change.

Validation subjects at 256 x 256, and final figures of the test series: CT at its native 512 x 512, MRI brought to
256 x 256. Slices are spread evenly over a subject; means are over subjects. Times want an idle machine: two threads, a
few seconds.

    python benchmarks/accuracy/autoencoder.py --out runs/autoencoder.json --slices 16
    python benchmarks/accuracy/autoencoder.py --out runs/autoencoder.json --only times
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpus import CORPUS
from simulated_cases import SUBJECTS

from medrecon import formats
from medrecon.data.manifest import load_manifest
from medrecon.data.values import COUNTS, counts, magnitude_scale, resized
from medrecon.diagnose.base import Case, Settings, spread
from medrecon.diagnose.findings.round_trip import tissue, window_scores
from medrecon.models.prior import Prior
from medrecon.models.store import load_prior
from medrecon.training.images.slices import Slices
from medrecon.training.images.sources import load_slices

ORGANS = (-20.0, 100.0)
"""HU of the mean over 5 x 5 pixels"""


def test_series(modality: str, slices: int) -> Iterator[tuple[str, Tensor]]:
    """Test subjects and slices of their series."""
    for name in SUBJECTS[modality]:
        folder, _, series = name.partition("#")
        data = formats.read(CORPUS / folder, series=series or None).data
        yield Path(folder).name, data[spread(list(range(len(data))), slices)]


def native_ct(slices: int) -> Slices:
    """Slices of the CT test series at their own size."""
    found = dict(test_series("ct", slices))
    return Slices(torch.cat([counts(x) for x in found.values()]), tuple(s for s, x in found.items() for _ in x))


def test_mri(slices: int) -> Slices:
    """Slices of the MRI test series as training takes them."""
    found = dict(test_series("mri", slices))
    stacks = [resized(counts(x * (COUNTS / magnitude_scale(x))), 256) for x in found.values()]
    return Slices(torch.cat(stacks), tuple(s for s, x in found.items() for _ in x), 1 / COUNTS)


def validation(modality: str) -> Slices:
    return load_slices(load_manifest(Path(f"data_manifests/corpus_{modality}.toml")), "val", 256)


def round_trip(x: Tensor, case: Case, bf16: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return case.decode(case.encode(x)).float()


def figures(case: Case) -> dict[str, dict[str, float]]:
    """Per subject, and their mean: PSNR in float32 and how bfloat16 changes it, bias in organs (HU), worst slice."""
    x = case.images
    y, half = (round_trip(x, case, bf16) for bf16 in (False, True))
    scores, changed = window_scores(case, x, y), window_scores(case, x, half)
    found = {}
    for subject in dict.fromkeys(case.subjects):
        own = torch.tensor([s == subject for s in case.subjects])
        row = {"slices": float(own.sum()), "worst": float(scores["full"][own].min())}
        for name in scores:
            row |= {
                name: float(scores[name][own].mean()),
                f"{name}_bf16": float((changed[name] - scores[name])[own].mean()),
            }
        if case.prior.units == "HU":
            row["bias"] = float((y - x)[own][tissue(x[own], *ORGANS)].double().mean())
        found[subject] = row
    found["mean over subjects"] = {
        key: sum(row[key] for row in found.values()) / len(found) for key in next(iter(found.values()))
    }
    found["mean over subjects"]["worst"] = min(row["worst"] for row in found.values())
    return found


def bf16_in_differences(case: Case) -> float:
    """|d16 - d32| / |d32| with d = E(x) - E(D(E(x))), as in the encoder-residual update, d16 in bfloat16."""
    x = case.images[:: max(1, len(case.images) // 8)]
    near = round_trip(x, case, False)
    d32 = case.encode(x) - case.encode(near)
    with torch.autocast("cpu", torch.bfloat16):
        d16 = case.encode(x) - case.encode(near)
    return float((d16 - d32).norm() / d32.norm())


def milliseconds(prior: Prior, threads: int, bf16: bool) -> dict[str, float]:
    """A 256 x 256 slice at a batch of 8: the least of five wall times, or CPU times of one thread."""
    clock = time.process_time if threads == 1 else time.perf_counter
    torch.set_num_threads(threads)
    x = torch.zeros(8, 256, 256)
    z = prior.encode(x)
    spent: dict[str, list[float]] = {"encode": [], "decode": []}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for _ in range(5):
            start = clock()
            prior.encode(x)
            middle = clock()
            prior.decode(z, (256, 256))
            spent["encode"].append(middle - start)
            spent["decode"].append(clock() - middle)
    torch.set_num_threads(1)
    return {name: min(values) / 8 * 1e3 for name, values in spent.items()}


def tables(report: dict[str, Any]) -> str:
    lines = []
    if "times" in report:
        lines += ["| a slice, batch of 8 | encode ms | decode ms |", "|---|---|---|"]
        lines += [f"| {name} | {t['encode']:.0f} | {t['decode']:.0f} |" for name, t in report["times"].items()]
    for name, case in report.get("round_trip", {}).items():
        ct = "bias" in case["subjects"]["mean over subjects"]
        lines += ["", f"{name}; bfloat16 errs by {100 * case['bf16_in_differences']:.2g} % in encoder differences", ""]
        head = ["subject", "slices", "full dB", "worst slice dB", "bf16 dB"]
        head += ["soft dB", "bf16 dB", "organ bias HU"] if ct else []
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for subject, r in case["subjects"].items():
            cells = [subject, f"{r['slices']:.4g}", f"{r['full']:.2f}", f"{r['worst']:.2f}", f"{r['full_bf16']:+.3f}"]
            cells += [f"{r['soft']:.2f}", f"{r['soft_bf16']:+.3f}", f"{r['bias']:+.2f}"] if ct else []
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="figures (JSON)")
    parser.add_argument("--slices", type=int, default=16, help="slices a subject")
    parser.add_argument("--only", choices=("times", "round_trip"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    priors = {name: load_prior(name) for name in ("ct", "mri")}
    if options.only != "round_trip":
        report["times"] = {
            f"{'bfloat16' if bf16 else 'float32'}, {words}": milliseconds(priors["ct"], threads, bf16)
            for bf16 in (False, True)
            for threads, words in ((1, "CPU time of one thread"), (2, "wall time of two threads"))
        }
    if options.only != "times":
        sets = {
            "CT, validation, 256 x 256": ("ct", validation("ct")),
            "CT, test, 512 x 512": ("ct", native_ct(options.slices)),
            "MRI, validation, 256 x 256": ("mri", validation("mri")),
            "MRI, test, 256 x 256": ("mri", test_mri(options.slices)),
        }
        report["round_trip"] = {}
        for name, (prior, held_out) in sets.items():
            case = Case(priors[prior], held_out, None, Settings(slices=options.slices))
            report["round_trip"][name] = {"subjects": figures(case), "bf16_in_differences": bf16_in_differences(case)}
    options.out.write_text(json.dumps(report, indent=1))
    print(tables(report))


if __name__ == "__main__":
    main()
