"""undersample: fewer samples of a measured scan, for a reconstruction that can be compared with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.measurement import load
from medrecon.cli.options import MOST_PIXELS, Model, Output, Pattern, Seed, UsageError, Writing, parse_slices
from medrecon.cli.show import check_free, note, show_json, show_tree

app = App(name="undersample")


class Choices(Model):
    """Which samples to keep."""

    accel: float = Field(4.0, ge=1, le=1000)
    """nominal acceleration R of the mask, the central lines included; the true one is reported"""
    mask: Pattern = "random"
    """sampling pattern, of columns of k-space; gaussian-2d, poisson and golden-angle undersample both axes"""
    acs: int = Field(24, ge=0, le=MOST_PIXELS)
    """fully sampled central lines, from which the coil maps are learned; 12 or more"""
    seed: Seed = 0
    """seed of the mask"""
    slices: str | None = None
    """A:B, slices A to B-1 only"""
    keep_maps: Annotated[bool, Parameter(negative="")] = False
    """keep the scan's coil maps, though they may be made of samples that are left out"""


@app.default
def undersample(
    measurement: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    how: Choices = Choices(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Leave out samples of a measured Cartesian MRI scan, as if it had been accelerated.

    Parameters
    ----------
    measurement
        measurement file (.h5), see `medrecon import`
    output
        measurement file (.h5) to write
    """
    if output.suffix != ".h5":
        raise UsageError(f"-o {output}: a measurement file ends in .h5")
    check_free(output, writing.overwrite, inputs=(measurement,))

    from medrecon.formats.measurement_file import save_scan
    from medrecon.sampling.pattern import draw
    from medrecon.simulate.undersample import undersample as leave_out

    scan = load(measurement)
    if how.slices:
        scan = scan.slices(*parse_slices(how.slices, scan.slice_count))
    if scan.modality != "mri" or scan.noncartesian:
        raise ValueError(f"{measurement}: not Cartesian MRI; only its samples can be left out")
    shape = (scan.image_shape[0], scan.image_shape[1])
    try:
        pattern = draw(how.mask, shape, how.accel, how.acs, seed=how.seed)
    except ValueError as error:
        raise ValueError(f"{measurement}, --accel {how.accel:g} --acs {how.acs}: {error}") from error
    scan = leave_out(scan, pattern.mask, details=pattern.describe(), keep_maps=how.keep_maps)
    result = {
        "measurement": str(measurement),
        "output": str(output),
        "data": list(scan.data.shape),
        **scan.provenance["undersampled"],
    }
    check_free(output, writing.overwrite, scan.data.numel() / 4)  # k-space with zeros is compressed
    if writing.dry_run:
        (show_json if out.json else show_tree)({**result, "dry_run": True})
        return 0
    save_scan(scan, output, overwrite=writing.overwrite)
    (show_json if out.json else show_tree)(result)
    note(f"wrote {output}")
    return 0
