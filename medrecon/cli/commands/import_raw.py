"""import: raw data of scanners and public collections into a measurement file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from pydantic import Field

from medrecon.cli.options import MOST_PIXELS, Model, Output, UsageError, Writing, as_option
from medrecon.cli.show import check_free, note, show_json, show_tree

app = App(name="import")


Pitch = Annotated[float, Field(ge=1e-7, le=1e4)]
"""mm, a tenth of a nanometre to ten metres"""
Counter = Annotated[int, Field(ge=0, le=65535)]
"""16 bits, in ISMRMRD and twix"""


class Choices(Model):
    """What the file does not say, and what to read of it."""

    slices: str | None = None
    """A:B, slices (detector rows) A to B-1 only"""
    size: int | None = Field(None, ge=1, le=MOST_PIXELS)
    """rows of the reconstructed image"""
    pixel: Pitch | None = None
    """pitch of the reconstructed image in mm"""
    pixel_size: Pitch | None = None
    """pitch of the detector elements in mm, where the file lacks it"""
    centre: float | None = Field(None, ge=-1e6, le=1e6)
    """where the rotation axis projects, in detector elements from the middle of the first; found by itself otherwise"""
    slice_spacing: Pitch | None = None
    """distance in mm of the slices that helical data are rebinned to"""
    direct: Annotated[bool, Parameter(negative="")] = False
    """keep the cone beam of helical data for a reconstruction in three dimensions, instead of rebinning"""
    format: str | None = None
    """name of the format, instead of recognising it"""
    contrast: Counter | None = None
    """which contrast (echo) of an MRI measurement to read, as the file counts them; the first by default"""
    phase: Counter | None = None
    """which cardiac phase to read"""
    repetition: Counter | None = None
    """which repetition to read"""
    set: Counter | None = None
    """which set to read"""
    where: dict[str, Counter] | None = None
    """which value of a counter that a sequence uses as it likes, such as --where.segment 0 or --where.user1 2"""
    group: str | None = None
    """which measurement of an ISMRMRD file to read, as `medrecon info` lists them"""
    measurement: Counter | None = None
    """which measurement of a twix file to read, as `medrecon info` lists them"""
    coils: int | None = Field(None, ge=1, le=1024)
    """number of virtual coils to compress MRI to, after whitening by the noise readouts"""
    coords: str | None = None
    """.npy file with the coordinates (..., 2), row and column, of the samples of k-space in .npy; with --size"""
    coords_units: Literal["cycles/fov", "cycles/pixel", "radians/pixel"] | None = None
    """units of the coordinates; cycles per field of view, -n/2 to n/2, by default"""


@app.default
def import_raw(
    raw: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    how: Choices = Choices(),
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Make a measurement file of raw scanner data: geometry, flat field, rotation centre, noise.

    Parameters
    ----------
    raw
        file or folder; its format is recognised, see docs/guide/raw_data.md
    output
        measurement file (.h5) to write
    """
    if output.suffix != ".h5":
        raise UsageError(f"-o {output}: a measurement file ends in .h5")
    check_free(output, writing.overwrite, inputs=(raw,))

    from medrecon.acquisition.options import OptionError, RawOptions
    from medrecon.formats.contents import of_scan
    from medrecon.formats.measurement_file import save_scan
    from medrecon.formats.raw_data import read_by, recognise

    given = {**how.model_dump(), "slices": parse_range(how.slices), "direct": how.direct or None}
    try:
        options = RawOptions(**given)
        found = recognise(raw, options)
        plan = {"source": str(raw), "output": str(output), "format": found.name, "options": options.given()}
        scan = read_by(found, raw, options)
    except OptionError as error:
        raise UsageError(as_option(str(error), given)) from error
    result = {**plan, **of_scan(scan)}
    check_free(output, writing.overwrite, scan.data.numel() / 4)  # k-space with zeros is compressed
    if writing.dry_run:
        (show_json if out.json else show_tree)({**result, "dry_run": True})
        return 0
    save_scan(scan, output, overwrite=writing.overwrite)
    (show_json if out.json else show_tree)(result)
    note(f"wrote {output}")
    return 0


def parse_range(text: str | None) -> tuple[int, int] | None:
    """Read 'A:B' as (A, B), ':B' as (0, B), 'A' as (A, A + 1): how many there are is known only when the file is read.

    Raises:
        UsageError: not of that form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d*):(\d+)|(\d+)", text.strip())
    if not match:
        raise UsageError(f"--slices {text!r}: expected A:B, such as 10:20, :5 or 12")
    return (int(match[3]), int(match[3]) + 1) if match[3] else (int(match[1] or 0), int(match[2]))
