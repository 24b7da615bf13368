"""noise: how noisy each voxel of a reconstruction is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.measurement import load, usage
from medrecon.cli.options import Maps, Model, Output, Seed, UsageError, Writing, parse_slices, solver_settings
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json, show_tree

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
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Map the standard deviation of a reconstruction in every voxel, by reconstructing the scan with fresh noise.

    Parameters
    ----------
    measurement
        measurement file (.h5)
    output
        NIfTI file (.nii, .nii.gz), in the units of the reconstruction
    solver
        one of `medrecon solvers`; exact for linear ones: zero-filled, fbp, cg-sense where it converges
    """
    if not output.lower().endswith((".nii", ".nii.gz")):
        raise UsageError(f"-o {output}: a noise map is NIfTI, .nii or .nii.gz")
    check_free(Path(output), writing.overwrite, inputs=(measurement,))

    from medrecon import formats
    from medrecon.core import atomic
    from medrecon.pipeline import Request, prepare
    from medrecon.pipeline.noise_map import noise_map
    from medrecon.pipeline.request import Options

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
    start, stop = some or (0, scan.slice_count)
    formats.check_output(
        output, (stop - start) * scan.image_shape[-2] * scan.image_shape[-1], overwrite=writing.overwrite
    )
    if writing.dry_run:
        with usage():
            prepare(scan, solver, Request(**options))
        (show_json if out.json else show_tree)({**plan, "dry_run": True})
        return 0
    with usage(), atomic.claimed(Path(output)), progress(f"noise {solver}", out.quiet) as report:
        options["on_progress"] = report
        volume = noise_map(scan, solver, replicas=how.replicas, **options)
        formats.write(volume, output, overwrite=writing.overwrite, description=f"medrecon noise map of {solver}")
    if out.json:
        show_json({**plan, "median": float(volume.data.median()), "max": float(volume.data.max())})
    note(f"wrote {output}")
    return 0
