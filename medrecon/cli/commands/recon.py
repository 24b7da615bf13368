"""recon: from a measurement to an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.choice import by_itself
from medrecon.cli.measurement import corrections, load, usage
from medrecon.cli.options import Maps, Model, Output, Seed, Writing, parse_slices, solver_settings
from medrecon.cli.picture import check_preview, write_preview
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from medrecon.core.volume import Volume

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
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Reconstruct a measurement file to NIfTI or DICOM, with a JSON report beside it.

    Parameters
    ----------
    measurement
        measurement file (.h5)
    output
        NIfTI file (.nii, .nii.gz), a folder for a DICOM series, or an array for BART (.cfl)
    solver
        one of `medrecon solvers`; auto takes the one that did best on scans of this kind, and says why
    """
    inputs = (measurement, *([how.template] if how.template else []))
    check_free(Path(output), writing.overwrite, inputs=inputs)
    check_preview(how.preview, output, writing.overwrite, inputs)

    from medrecon import formats
    from medrecon.core import atomic
    from medrecon.pipeline import Request, prepare, reconstruct
    from medrecon.pipeline.job import sources
    from medrecon.pipeline.request import Options

    scan = load(measurement)
    start, stop = parse_slices(how.slices, scan.slice_count)
    settings = solver_settings(how.settings)
    solver, prior, why = by_itself(scan, solver, how.prior, how.mode, settings)
    options: Options = {
        "slices": (start, stop) if how.slices else None,
        "device": how.device,
        "seed": how.seed,
        "batch": how.batch,
        "mode": how.mode,
        "settings": settings,
        "prior": prior,
        "label": how.label,
        "maps": how.maps,
    }
    plan = {
        "measurement": str(measurement),
        "output": output,
        "solver": solver,
        **why,
        **corrections(scan),
        "settings": settings | ({"mode": how.mode} if how.mode else {}),
        "slices": [start, stop],
        "device": how.device,
        "seed": how.seed,
        "maps": how.maps,
    }
    size = (stop - start) * scan.image_shape[-2] * scan.image_shape[-1]
    formats.check_output(
        output, size, overwrite=writing.overwrite, template=how.template, source=sources(scan), report=True
    )
    if writing.dry_run:
        with usage():
            chosen, _ = prepare(scan, solver, Request(**options))
        (show_json if out.json else show_tree)({**plan, "class": type(chosen).__name__, "dry_run": True})
        return 0
    with usage(), atomic.claimed(Path(output)), progress(f"recon {solver}", out.quiet) as report:
        options["on_progress"] = report
        volume, result = reconstruct(scan, solver, **options)
        save(volume, {**plan, **result}, output, writing.overwrite, how.template)
        write_preview(how.preview, volume, result, writing.overwrite)
    says = _meaning(solver, result)
    note(f"wrote {output}: chi^2/m {result['chi2']:.3g} ({says}), {result['seconds']:.1f} s")
    if out.json:
        show_json({**plan, **result})
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
    volume: Volume, report: dict[str, Any], output: str, overwrite: bool = False, template: Path | None = None
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
