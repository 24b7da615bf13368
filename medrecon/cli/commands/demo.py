"""demo: three real scans, every solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from medrecon.cli.measurement import check_device
from medrecon.cli.options import Model, Output, Seed, UsageError
from medrecon.cli.progress import progress
from medrecon.cli.show import note, show_json, show_table

app = App(name="demo")


class Choices(Model):
    """How to run."""

    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    seed: Seed = 0
    """seed of noise, masks and stochastic solvers"""


@app.default
def demo(
    *, output: Annotated[Path, Parameter(name=["--output", "-o"])], how: Choices = Choices(), out: Output = Output()
) -> int:
    """Reconstruct three real scans with every solver: table, pictures, NIfTI, DICOM. Needs no network.

    Parameters
    ----------
    output
        folder to write; an earlier demo there is replaced, anything else is refused
    """
    if output.suffix:
        raise UsageError(f"-o {output}: give a folder")
    check_device(how.device)

    from medrecon.demo import run_demo

    with progress("demo", out.quiet) as report:
        rows = run_demo(output, device=how.device, seed=how.seed, on_progress=report)
    if out.json:
        show_json(rows)
    else:
        show_table(rows, ("case", "solver", "psnr_db", "ssim", "rmse", "chi2", "seconds"))
    note("chi2 is chi^2/m: far above 1 the image contradicts the samples; near 1 is no proof of what was not measured")
    note(f"pictures, NIfTI, DICOM and results.json are in {output}")
    return 0
