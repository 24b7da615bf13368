"""diagnose: what a prior can and cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.measurement import check_device
from medrecon.cli.options import Model, Output, Seed, UsageError, Writing
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json

app = App(name="diagnose")


class Choices(Model):
    """How to judge."""

    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None
    """names of diagnostics, such as round_trip; all unless given"""
    slices: int = Field(16, ge=1, le=10_000)
    """held-out slices of each subject, evenly spread"""
    few: int = Field(6, ge=1, le=10_000)
    """slices for the diagnostics that differentiate the network"""
    samples: int = Field(16, ge=1, le=10_000)
    """unconditional samples"""
    steps: int = Field(40, ge=2, le=10_000)
    """noise levels of the samples and of the likelihood"""
    churn: float = Field(0.4, ge=0, le=0.4142)
    """noise added before every step of the samples, a share of the level, 0 to 0.41; at 0 they follow the flow"""
    guidance: float = Field(1.0, gt=0, le=10)
    """above 1 the samples are clearer and less varied than what the prior knows, such as 1.1; 1 is the prior as it
    is"""
    size: int = Field(256, ge=8, le=4096)
    """side of the slices in pixels"""
    label: str | None = None
    """judge the prior of one of the classes it was trained with, such as chest; take data of that class"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    seed: Seed = 0
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
    check_free(output, writing.overwrite, inputs=(data, Path(prior)))
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
    try:
        weights = weights if how.label is None else weights.conditioned(how.label)
        weights.guided(how.guidance)  # complains now, not after the first diagnostics
    except ValueError as error:
        raise UsageError(f"--label {how.label}, --guidance {how.guidance:g}: {error}") from error
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
