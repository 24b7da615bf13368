"""diagnose: what a prior can and cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from medrecon.cli.options import Output, UsageError, Writing
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json


def diagnose(
    prior: str,
    /,
    *,
    data: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    slices: int = 16,
    few: int = 6,
    samples: int = 16,
    steps: int = 40,
    churn: float = 0.4,
    guidance: float = 1.0,
    size: int = 256,
    label: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Judge a prior on held-out subjects: round trip, latents, denoising, samples, memorisation, likelihood and more.

    Parameters
    ----------
    prior
        a shipped prior's name or a .safetensors file
    data
        data manifest (.toml) with train and val; or a folder of held-out scans, DICOM or NIfTI, one sub-folder a
        subject (then what needs the training slices is left out)
    output
        folder to write: diagnose.json, diagnose.md and pictures, some of which show your data
    only
        names of diagnostics, such as round_trip; all unless given
    slices
        held-out slices of each subject, evenly spread
    few
        slices for the diagnostics that differentiate the network
    samples
        unconditional samples
    steps
        noise levels of the samples and of the likelihood
    churn
        noise added before every step of the samples, a share of the level, 0 to 0.41; at 0 they follow the flow
    guidance
        above 1 the samples are clearer and less varied than what the prior knows, such as 1.1; 1 is the prior as it is
    size
        side of the slices in pixels
    label
        judge the prior of one of the classes it was trained with, such as chest; take data of that class
    device
        cpu, cuda or cuda:N
    seed
        seed of everything random
    """
    counts = {"slices": slices, "few": few, "samples": samples, "steps": steps, "size": size}
    for name, value in counts.items():
        if value < (2 if name == "steps" else 1):
            raise UsageError(f"--{name} {value}: too few")
    check_free(output, writing.overwrite)

    from medrecon.diagnose import run
    from medrecon.diagnose.base import Settings
    from medrecon.diagnose.sources import load_case
    from medrecon.diffusion.samplers.heun import Heun
    from medrecon.models.store import load_prior

    try:
        Heun(churn)
        chosen = run.diagnostics(only or ())
    except ValueError as error:
        raise UsageError(str(error)) from error
    settings = Settings(slices, few, samples, steps, churn, guidance, seed)
    weights = load_prior(prior, device)
    weights = weights if label is None else weights.conditioned(label)
    weights.guided(guidance)  # complains now, not after the first diagnostics
    case = load_case(weights, data, size, settings, device)
    if writing.dry_run:
        show_json({**run.header(case), "diagnostics": list(chosen), "dry_run": True})
        return 0
    with progress(f"diagnose {prior}", out.quiet) as report:
        result = run.diagnose(case, output, list(chosen), overwrite=writing.overwrite, on_progress=report)
    if out.json:
        show_json(result)
    else:
        print((output / "diagnose.md").read_text(), end="")
    note(f"wrote {output}")
    return 0
