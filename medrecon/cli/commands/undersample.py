"""undersample: fewer samples, or photons, of a measured scan, for a reconstruction to be compared with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.measurement import load
from medrecon.cli.options import MOST_PIXELS, Model, Output, Pattern, Seed, Share, UsageError, Writing, parse_slices
from medrecon.cli.show import check_free, note, show_json, show_tree

if TYPE_CHECKING:
    from medrecon.core.scan import Scan

app = App(name="undersample")


class Choices(Model):
    """Which samples to keep."""

    dose: Share | None = None
    """CT: share of the photons that the scan was made with, such as 25% or 0.25; its noise becomes that of fewer"""
    accel: float = Field(4.0, ge=1, le=1000)
    """MRI: nominal acceleration R of the mask, the central lines included; the true one is reported"""
    mask: Pattern = "random"
    """MRI: sampling pattern, of columns of k-space; gaussian-2d, poisson and golden-angle undersample both axes"""
    acs: int = Field(24, ge=0, le=MOST_PIXELS)
    """MRI: fully sampled central lines, from which the coil maps are learned; 12 or more"""
    seed: Seed = 0
    """seed of the mask, or of the noise"""
    slices: str | None = None
    """A:B, slices A to B-1 only"""
    keep_maps: Annotated[bool, Parameter(negative="")] = False
    """MRI: keep the scan's coil maps, though they may be made of samples that are left out"""


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
    """Leave out samples of a measured Cartesian MRI scan, as if it had been accelerated, or photons of a CT scan.

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

    scan = load(measurement)
    if how.slices:
        scan = scan.slices(*parse_slices(how.slices, scan.slice_count))
    scan, told = (
        _fewer_photons(scan, measurement, how) if how.dose is not None else _fewer_samples(scan, measurement, how)
    )
    result = {"measurement": str(measurement), "output": str(output), "data": list(scan.data.shape), **told}
    check_free(output, writing.overwrite, scan.data.numel() / 4)  # k-space with zeros is compressed
    if writing.dry_run:
        (show_json if out.json else show_tree)({**result, "dry_run": True})
        return 0
    save_scan(scan, output, overwrite=writing.overwrite)
    (show_json if out.json else show_tree)(result)
    note(f"wrote {output}")
    return 0


def _fewer_samples(scan: Scan, measurement: Path, how: Choices) -> tuple[Scan, dict[str, Any]]:
    """The scan with a mask on, and what is known of that."""
    from medrecon.sampling.pattern import draw
    from medrecon.simulate.undersample import undersample as leave_out

    if scan.modality != "mri" or scan.noncartesian:
        more = "; of CT give --dose, such as --dose 25%" if scan.modality == "ct" else ""
        raise ValueError(f"{measurement}: not Cartesian MRI; only its samples can be left out{more}")
    shape = (scan.image_shape[0], scan.image_shape[1])
    try:
        pattern = draw(how.mask, shape, how.accel, how.acs, seed=how.seed)
    except ValueError as error:
        raise ValueError(f"{measurement}, --accel {how.accel:g} --acs {how.acs}: {error}") from error
    scan = leave_out(scan, pattern.mask, details=pattern.describe(), keep_maps=how.keep_maps)
    return scan, scan.provenance["undersampled"]


def _fewer_photons(scan: Scan, measurement: Path, how: Choices) -> tuple[Scan, dict[str, Any]]:
    """The scan at a lower dose, and what is known of that.

    Raises:
        UsageError: options of MRI beside the dose.
        ValueError: not CT, or the photons of the scan are not known.
    """
    import torch

    from medrecon.simulate.dose import reduce_dose

    assert how.dose is not None
    if given := sorted(how.model_fields_set & {"accel", "mask", "acs", "keep_maps"}):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{names}: of MRI, and --dose of CT; leave one of them out")
    try:
        scan = reduce_dose(scan, how.dose, torch.Generator().manual_seed(how.seed))
    except ValueError as error:
        raise ValueError(f"{measurement}, --dose {how.dose:g}: {error}") from error
    return scan, {name: scan.provenance[name] for name in ("dose_fraction", "dose_seed")}
