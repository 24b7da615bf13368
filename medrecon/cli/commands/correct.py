"""correct: what a real CT scanner adds, taken out of a measurement file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.measurement import load
from medrecon.cli.options import Model, Output, UsageError, Writing
from medrecon.cli.progress import progress
from medrecon.cli.show import check_free, note, show_json, show_tree

app = App(name="correct")


class Choices(Model):
    """What to correct."""

    dead_elements: Annotated[bool, Parameter(negative="")] = False
    """interpolate detector elements that are dead or far off; solvers that weigh the rays leave them out"""
    rings: Annotated[bool, Parameter(negative="")] = False
    """take out stripes that are constant over the views: elements of wrong gain"""
    kvp: float | None = Field(None, ge=40, le=150)
    """take out beam hardening by water, of a tube of this voltage in kV; not where the scanner did it"""
    filter: float = Field(8.0, ge=0, le=50)
    """filtration of that tube in mm of aluminium"""
    metal: Literal["li", "nmar"] | None = None
    """fill in rays through metal: li interpolates them, nmar by a prior image; the image then lacks the metal"""
    metal_threshold: float = Field(2500.0, ge=300, le=100_000)
    """HU from which a first image is metal"""
    filled: Literal["weightless", "measured"] = "weightless"
    """what rays count that were filled in: weightless (tv and others leave them out, fbp refuses them), or measured,
    for fbp"""


@app.default
def correct(
    measurement: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    how: Choices = Choices(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Take dead elements, rings, beam hardening and metal out of a CT measurement file, in this order.

    Parameters
    ----------
    measurement
        measurement file (.h5) of CT
    output
        measurement file (.h5) to write
    """
    _check(how, output)
    check_free(output, writing.overwrite, inputs=(measurement,))

    from medrecon.acquisition.correct import DONE, Corrections, check
    from medrecon.acquisition.correct import correct as corrected
    from medrecon.core import atomic
    from medrecon.formats.common.naming import naming
    from medrecon.formats.measurement_file import save_scan

    scan = load(measurement)
    asked = Corrections(how.dead_elements, how.rings, how.kvp, how.filter, how.metal, how.metal_threshold, how.filled)
    with naming(measurement):
        check(scan, asked)
    check_free(output, writing.overwrite, 2 * scan.data.numel())
    plan = {"measurement": str(measurement), "output": str(output), **how.model_dump(exclude_unset=True)}
    if writing.dry_run:
        (show_json if out.json else show_tree)({**plan, "dry_run": True})
        return 0
    with atomic.claimed(output), progress(f"correct {measurement.name}", out.quiet) as report:
        with naming(measurement):
            scan = corrected(scan, asked, report)
        save_scan(scan, output, overwrite=writing.overwrite)
    (show_json if out.json else show_tree)({**plan, DONE: scan.provenance[DONE]})
    note(f"wrote {output}")
    return 0


def _check(how: Choices, output: Path) -> None:
    """Raises UsageError: nothing is asked for, or an option without the one that it belongs to."""
    if output.suffix != ".h5":
        raise UsageError(f"-o {output}: a measurement file ends in .h5")
    if not (how.dead_elements or how.rings or how.kvp or how.metal):
        raise UsageError("nothing to correct: give --dead-elements, --rings, --kvp or --metal")
    filling = how.metal or how.dead_elements or None
    belongs = [("filter", "kvp", how.kvp), ("metal_threshold", "metal", how.metal)]
    for name, whole, given in [*belongs, ("filled", "metal or --dead-elements", filling)]:
        if name in how.model_fields_set and given is None:
            raise UsageError(f"--{name.replace('_', '-')}: belongs to --{whole}, which is not given")
