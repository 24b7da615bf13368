"""`medrecon diagnose`: every diagnostic on one prior, and its report: diagnose.json, diagnose.md and pictures."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from medrecon import __version__
from medrecon.core.discover import modules
from medrecon.core.progress import OnProgress, silent
from medrecon.diagnose.base import Case, Finding

PATTERN = "diagnose*"
"""names of everything written"""


def diagnostics(only: Sequence[str] = ()) -> dict[str, ModuleType]:
    """The diagnostics by name, all or those asked for.

    Raises:
        ValueError: an unknown name.
    """
    found = {m.__name__.rpartition(".")[2]: m for m in modules("medrecon.diagnose.findings")}
    unknown = [name for name in only if name not in found]
    if unknown:
        raise ValueError(f"no diagnostic {unknown[0]!r}; there are {', '.join(found)}")
    return {name: module for name, module in found.items() if not only or name in only}


def diagnose(
    case: Case, output: Path, only: Sequence[str] = (), *, overwrite: bool = False, on_progress: OnProgress = silent
) -> dict[str, Any]:
    """Run the diagnostics and write the folder `output`, whole or not at all; the report.

    Raises:
        FileExistsError: `output` exists and `overwrite` is off, or holds other things.
        ValueError: an unknown diagnostic.
    """
    from medrecon.core import atomic

    chosen = diagnostics(only)
    report = header(case)
    with atomic.folder(output, PATTERN, overwrite=overwrite) as folder:
        tables: dict[str, Finding] = {}
        for i, (name, module) in enumerate(chosen.items()):
            start = time.process_time()
            finding: Finding = module.run(
                case, case.settings.generator(), lambda share, i=i: on_progress(i + share, len(chosen))
            )
            report["diagnostics"][name] = {**finding.values, "cpu_seconds": round(time.process_time() - start, 1)}
            tables[name] = finding
            for picture, pixels in finding.pictures.items():
                write_png(folder / f"diagnose_{picture}.png", pixels)
            on_progress(i + 1, len(chosen))
        report = finite(report)
        (folder / "diagnose.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        (folder / "diagnose.md").write_text(markdown(report, tables))
    return report


def header(case: Case) -> dict[str, Any]:
    """What was judged, on what, how."""
    card = case.prior.card
    return {
        "prior": case.prior.name,
        "label": case.prior.label,
        "sha256": card.get("sha256"),
        "modality": case.prior.modality,
        "units": case.prior.units,
        "size": case.held_out.data.shape[-1],
        "held_out": {
            "subjects": len(set(case.held_out.subjects)),
            "slices": len(case.held_out.subjects),
            "looked_at": len(case.index),
        },
        "training": None
        if case.training is None
        else {"subjects": len(set(case.training.subjects)), "slices": len(case.training.subjects)},
        "settings": asdict(case.settings),
        "software": {"medrecon": __version__},
        "diagnostics": {},
        "use": "RESEARCH USE ONLY - NOT FOR CLINICAL USE",
    }


def markdown(report: dict[str, Any], findings: dict[str, Finding]) -> str:
    """The tables for people."""
    held, of = report["held_out"], f", {report['label']}" if report["label"] else ""
    guidance = report["settings"]["guidance"]
    guided = "" if guidance == 1 else f"; samples guided by {guidance:g}: not draws of the prior as it is"
    lines = [
        f"# Diagnostics of the prior {report['prior']} ({report['modality']}{of})",
        "",
        f"{held['looked_at']} slices of {held['subjects']} held-out subjects, {report['size']} x {report['size']}; "
        f"seed {report['settings']['seed']}{guided}. {report['use']}.",
        "",
        "| diagnostic | quantity | figure |",
        "|---|---|---|",
    ]
    for name, finding in findings.items():
        lines += [f"| {name} | {quantity} | {figure} |" for quantity, figure in finding.table]
    for finding in findings.values():
        for title, (head, *rows) in finding.details.items():
            lines += ["", f"## {title}", "", *(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))]
    return "\n".join(lines) + "\n"


def finite(value: Any) -> Any:
    """The same for JSON: what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_png(path: Path, pixels: Tensor) -> None:
    """Grey image (H, W) uint8."""
    from PIL import Image

    Image.fromarray(pixels.numpy()).save(path, optimize=True)
