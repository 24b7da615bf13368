"""export: the k-space of a measurement file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from medrecon.cli.measurement import load
from medrecon.cli.options import Output, UsageError, Writing, parse_slices
from medrecon.cli.show import check_free, note, show_json, show_tree

app = App(name="export")


@app.default
def export(
    measurement: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    format: str,
    slices: str | None = None,
    writing: Writing = Writing(),
    out: Output = Output(),
) -> int:
    """Write the k-space of an MRI measurement file in a format of other programs.

    Parameters
    ----------
    measurement
        measurement file (.h5)
    output
        file to write: .cfl for bart (its .hdr, coil maps and sampling pattern go beside it), .h5 for the others
    format
        bart, fastmri or ismrmrd; docs/guide/raw_data.md says what each one keeps
    slices
        A:B, slices A to B-1 only
    """
    from medrecon import formats

    known = formats.exports()
    if format not in known:
        raise UsageError(f"--format {format}: known are {', '.join(known)}")
    if output.suffix != known[format].suffix:
        raise UsageError(f"-o {output}: a {format} file ends in {known[format].suffix}")
    check_free(output, writing.overwrite, inputs=(measurement,))
    scan = load(measurement)
    if slices:
        scan = scan.slices(*parse_slices(slices, scan.slice_count))
    result = {"measurement": str(measurement), "output": str(output), "format": format, "data": list(scan.data.shape)}
    check_free(output, writing.overwrite, scan.data.numel() / 4)  # k-space with zeros is compressed
    if writing.dry_run:
        formats.check_export(scan, output, format, overwrite=writing.overwrite)
        (show_json if out.json else show_tree)({**result, "dry_run": True})
        return 0
    formats.export(scan, output, format, overwrite=writing.overwrite)
    (show_json if out.json else show_tree)(result)
    note(f"wrote {output}")
    return 0
