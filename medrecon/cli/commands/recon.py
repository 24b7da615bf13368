"""recon: from a measurement to an image."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.choice import by_itself
from medrecon.cli.measurement import corrections, load_part, usage
from medrecon.cli.options import Maps, Model, Output, Seed, Writing, solver_settings
from medrecon.cli.picture import check_preview, write_preview
from medrecon.cli.running import Running, carried_out, drop_leftover, foreseen, was_writing
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from medrecon.core.scan import Scan
    from medrecon.core.stack import Stack
    from medrecon.core.volume import Volume
    from medrecon.pipeline.request import Options
    from medrecon.runs import Run

FAR = 3.0
"""chi^2/m from which it is said that an image does not explain its data."""

app = App(name="recon")


class Choices(Model):
    """How to reconstruct."""

    mode: Literal["fast", "paper", "reference"] | None = None
    """form of resample: fast (ours), paper (as published), reference (as its public code behaves)"""
    slices: str | None = None
    """A:B, slices A to B-1 only; not of a cone-beam scan"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    seed: Seed = 0
    """seed of stochastic solvers"""
    batch: int | None = Field(None, ge=1, le=10_000)
    """slices solved at once: more are faster and take more memory"""
    settings: dict[str, str] | None = None
    """hyper-parameters of the solver, such as --settings.iterations 50; `medrecon solvers NAME` lists those of a solver
    with their defaults and what they mean"""
    prior: str | None = None
    """ct, ct_pixel, mri, mri_pixel or a .safetensors file; ct or mri, by the modality, unless given"""
    label: str | None = None
    """what is measured: a class that the prior was trained with, such as chest"""
    template: Path | None = None
    """folder of the DICOM images that the measurement was simulated from: patient and study of a DICOM output"""
    preview: Path | None = None
    """PNG to write beside the result: up to nine slices, evenly spread"""
    maps: Maps = "auto"
    """coil sensitivities of MRI: auto takes the measurement's own, or else ESPIRiT's; nlinv and jsense need no fully
    sampled centre"""


@app.default
def recon(
    measurement: Path,
    /,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    solver: str,
    how: Choices = Choices(),
    running: Running = Running(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Reconstruct a measurement file to NIfTI or DICOM, with a JSON report beside it.

    Finished slices are kept in OUTPUT.slices until the output is written; after a kill the same command goes on.

    Parameters
    ----------
    measurement
        measurement file (.h5)
    output
        NIfTI file (.nii, .nii.gz), a folder for a DICOM series, or an array for BART (.cfl)
    solver
        one of `medrecon solvers`; auto takes the one that did best on scans of this kind, and says why
    """
    began = time.perf_counter()
    inputs = (measurement, *([how.template] if how.template else []))
    drop_leftover(Path(output))
    check_free(Path(output), writing.overwrite, inputs=inputs)
    own = writing.overwrite or was_writing(Path(output))  # a preview that a killed run of this output has left
    check_preview(how.preview, output, own, inputs)
    running.check()

    from medrecon import formats
    from medrecon.formats.measurement_file import load_scan
    from medrecon.pipeline.job import sources
    from medrecon.runs import Task

    scan, some = load_part(measurement, how.slices)
    plan, options = _plan(measurement, output, solver, how, scan, some)
    start, stop = plan["slices"]
    size = (stop - start) * scan.image_shape[-2] * scan.image_shape[-1]
    formats.check_output(
        output, size, overwrite=writing.overwrite, template=how.template, source=sources(scan), report=True
    )
    read = functools.partial(load_scan, on_disk=True)
    load = read if some or not how.slices else functools.partial(read, slices=(start, stop))
    task = Task(measurement, load, plan["solver"], options)
    if writing.dry_run:
        with usage():
            expected = foreseen(task, scan, Path(output), running, began)
        (show_json if out.json else show_tree)({**plan, **expected, "dry_run": True})
        return 0
    finish = functools.partial(_finish, plan=plan, output=output, overwrite=own, how=how)
    result = carried_out(task, scan, Path(output), running, out.quiet, finish)
    return 0 if result is None else _tell(result, plan, output, out)


def _plan(
    measurement: Path, output: str, solver: str, how: Choices, scan: Scan, some: tuple[int, int] | None
) -> tuple[dict[str, Any], Options]:
    """All that was decided, for people; and the same for `reconstruct`, of some slices of the scan or all."""
    start, stop = some or (0, scan.slice_count)
    settings = solver_settings(how.settings)
    solver, prior, why = by_itself(scan, solver, how.prior, how.mode, settings)
    options: Options = {
        "slices": some,
        "device": how.device,
        "seed": how.seed,
        "batch": how.batch,
        "mode": how.mode,
        "settings": settings,
        "prior": prior,
        "label": how.label,
        "maps": how.maps,
    }
    return {
        "measurement": str(measurement),
        "output": output,
        "solver": solver,
        **why,
        **corrections(scan),
        "settings": settings | ({"mode": how.mode} if how.mode else {}),
        "slices": [scan.first + start, scan.first + stop],
        "device": how.device,
        "seed": how.seed,
        "maps": how.maps,
    }, options


def _finish(run: Run, plan: dict[str, Any], output: str, overwrite: bool, how: Choices) -> dict[str, Any]:
    """Write the output of a run that is complete; the report."""
    stack, result = run.result()
    run.kept.finish(Path(output))
    write_preview(how.preview, stack, result, overwrite)  # first: what was kept may go once the output is there
    save(stack, {**plan, **result}, output, overwrite, how.template)
    return result


def _tell(result: dict[str, Any], plan: dict[str, Any], output: str, out: Output) -> int:
    """Say how it went; the exit code."""
    says = _meaning(plan["solver"], result)
    note(f"wrote {output}: chi^2/m {result['chi2']:.3g} ({says}), {result['seconds']:.1f} s")
    if out.json:
        show_json({**plan, **result})
    start, stop = plan["slices"]
    if failed := result.get("failed"):
        note(f"{len(failed)} of {stop - start} slices failed: {', '.join(failed)}")
    return 1 if failed else 0


def _meaning(solver: str, report: dict[str, Any]) -> str:
    """What chi^2/m says of an image, in a few words."""
    from medrecon.pipeline.choose import solver_classes

    if report["chi2"] <= FAR:
        return "near 1 is no proof of what was not measured"
    if solver_classes()[solver].direct:
        return f"{solver} does not fit the data, so above 1 is usual; an iterative solver such as tv does"
    far = "far above 1: the image does not explain the data"
    if report.get("coil_maps", "from the scan") != "from the scan":
        far += f"; the coil maps ({report['coil_maps']}) may err, try --maps nlinv, or acquire more calibration lines"
    return far


def save(
    volume: Volume | Stack, report: dict[str, Any], output: str, overwrite: bool = False, template: Path | None = None
) -> None:
    """Write the image, and the report as `output`.report.json beside it (a DICOM folder holds DICOM only)."""
    import json

    from medrecon import formats
    from medrecon.cli.show import plain

    settings = ", ".join(f"{k}={v}" for k, v in report["settings"].items())
    formats.write(
        volume,
        output,
        overwrite=overwrite,
        template=template,
        description=f"medrecon {report['solver']}({settings})",
        report=json.dumps(plain(report), indent=2) + "\n",
    )
