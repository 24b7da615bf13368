"""noise: how noisy each voxel of a reconstruction is."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.measurement import load, usage
from medrecon.cli.options import Maps, Model, Output, Seed, UsageError, Writing, parse_slices, solver_settings
from medrecon.cli.running import Running, carried_out, drop_leftover, foreseen
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from medrecon.runs import Run

app = App(name="noise")


class Choices(Model):
    """How to map the noise."""

    replicas: int = Field(50, ge=2, le=100_000)
    """reconstructions with noise of their own; the map is known to 1 / sqrt(2 replicas) of itself"""
    slices: str | None = None
    """A:B, slices A to B-1 only"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    seed: Seed = 0
    """seed of the noise"""
    settings: dict[str, str] | None = None
    """hyper-parameters of the solver, as of `medrecon recon`"""
    prior: str | None = None
    """ct, ct_pixel, mri, mri_pixel or a .safetensors file; ct or mri, by the modality, unless given"""
    maps: Maps = "auto"
    """coil sensitivities of MRI, as of `medrecon recon`"""


@app.default
def noise(
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
    """Map the standard deviation of a reconstruction in every voxel, by reconstructing the scan with fresh noise.

    Finished slices are kept in OUTPUT.slices until the output is written; after a kill the same command goes on.

    Parameters
    ----------
    measurement
        measurement file (.h5)
    output
        NIfTI file (.nii, .nii.gz), in the units of the reconstruction
    solver
        one of `medrecon solvers`; exact for linear ones: zero-filled, fbp, cg-sense where it converges
    """
    began = time.perf_counter()
    if not output.lower().endswith((".nii", ".nii.gz")):
        raise UsageError(f"-o {output}: a noise map is NIfTI, .nii or .nii.gz")
    drop_leftover(Path(output))
    check_free(Path(output), writing.overwrite, inputs=(measurement,))
    running.check()

    from medrecon import formats
    from medrecon.formats.measurement_file import load_scan
    from medrecon.pipeline.request import Options
    from medrecon.runs import Task

    scan = load(measurement, on_disk=True)
    some = parse_slices(how.slices, scan.slice_count) if how.slices else None
    settings = solver_settings(how.settings)
    options: Options = {
        "slices": some,
        "device": how.device,
        "seed": how.seed,
        "settings": settings,
        "prior": how.prior,
        "maps": how.maps,
    }
    plan = {
        "measurement": str(measurement),
        "output": output,
        "solver": solver,
        "settings": settings,
        "replicas": how.replicas,
        "seed": how.seed,
    }
    task = Task(measurement, functools.partial(load_scan, on_disk=True), solver, options, how.replicas)
    start, stop = some or (0, scan.slice_count)
    formats.check_output(
        output, (stop - start) * scan.image_shape[-2] * scan.image_shape[-1], overwrite=writing.overwrite
    )
    if writing.dry_run:
        with usage():
            expected = foreseen(task, scan, Path(output), running, began)
        (show_json if out.json else show_tree)({**plan, **expected, "dry_run": True})
        return 0
    finish = functools.partial(_finish, output=output, overwrite=writing.overwrite, solver=solver)
    found = carried_out(task, scan, Path(output), running, out.quiet, finish)
    if found is None:
        return 0
    if out.json:
        show_json({**plan, **found})
    note(f"wrote {output}")
    if failed := found.get("failed"):
        note(f"{len(failed)} of {stop - start} slices failed: {', '.join(failed)}")
    return 1 if failed else 0


def _finish(run: Run, output: str, overwrite: bool, solver: str) -> dict[str, Any]:
    """Write the map of a run that is complete; its median and maximum, and what failed."""
    from medrecon import formats

    stack, report = run.result()
    run.kept.finish(Path(output))
    formats.write(stack, output, overwrite=overwrite, description=f"medrecon noise map of {solver}")
    values = stack.whole().data
    failed = {"failed": report["failed"]} if "failed" in report else {}
    return {"median": float(values.median()), "max": float(values.max()), **failed}
