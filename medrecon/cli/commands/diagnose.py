"""diagnose: what a prior can and cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from medrecon.cli.measurement import check_device
from medrecon.cli.options import Output, UsageError, Writing
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json

app = App(name="diagnose")


@Parameter(name="*")
@dataclass(frozen=True)
class Choices:
    """How to judge."""

    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None
    """names of diagnostics, such as round_trip; all unless given"""
    slices: int = 16
    """held-out slices of each subject, evenly spread"""
    few: int = 6
    """slices for the diagnostics that differentiate the network"""
    samples: int = 16
    """unconditional samples"""
    steps: int = 40
    """noise levels of the samples and of the likelihood"""
    churn: float = 0.4
    """noise added before every step of the samples, a share of the level, 0 to 0.41; at 0 they follow the flow"""
    guidance: float = 1.0
    """above 1 the samples are clearer and less varied than what the prior knows, such as 1.1; 1 is the prior as it
    is"""
    size: int = 256
    """side of the slices in pixels"""
    label: str | None = None
    """judge the prior of one of the classes it was trained with, such as chest; take data of that class"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    seed: int = 0
    """seed of everything random"""


@app.default
def diagnose(
    prior: str,
    /,
    *,
    data: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    how: Choices = Choices(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Judge a prior on held-out subjects: round trip, latents, denoising, samples, memorisation, likelihood and more.

    Parameters
    ----------
    prior
        ct, ct_pixel, mri, mri_pixel or a .safetensors file
    data
        data manifest (.toml) with train and val; or a folder of held-out scans, DICOM or NIfTI, one sub-folder a
        subject (then what needs the training slices is left out)
    output
        folder to write: diagnose.json, diagnose.md and pictures, some of which show your data
    """
    for name in ("slices", "few", "samples", "steps", "size"):
        value = getattr(how, name)
        if value < (2 if name == "steps" else 1):
            raise UsageError(f"--{name} {value}: too few")
    check_free(output, writing.overwrite)
    check_device(how.device)

    from medrecon.diagnose import run
    from medrecon.diagnose.base import Settings
    from medrecon.diagnose.sources import load_case
    from medrecon.diffusion.samplers.heun import Heun
    from medrecon.models.store import load_prior

    try:
        Heun(how.churn)
        chosen = run.diagnostics(how.only or ())
    except ValueError as error:
        raise UsageError(str(error)) from error
    settings = Settings(how.slices, how.few, how.samples, how.steps, how.churn, how.guidance, how.seed)
    weights = load_prior(prior, how.device)
    weights = weights if how.label is None else weights.conditioned(how.label)
    weights.guided(how.guidance)  # complains now, not after the first diagnostics
    case = load_case(weights, data, how.size, settings, how.device)
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
