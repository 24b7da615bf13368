"""Measurement files as commands take them, and what does not go with them, as wrong usage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon.cli.options import UsageError, as_option, parse_slices
from medrecon.cli.show import note

if TYPE_CHECKING:
    from medrecon.core.scan import Scan


def load(path: Path, *, on_disk: bool = False) -> Scan:
    """Read a measurement file; `on_disk`: see `load_scan`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file: names it, and the command that makes a measurement of it; or damaged.
    """
    from medrecon.formats.find import by_content, unknown
    from medrecon.formats.measurement_file import load_scan

    format = by_content(path)
    if format is None or format.name != "measurement":
        raise unknown(path, "not a measurement file", ["medrecon simulate and medrecon import write them"], format)
    return load_scan(path, on_disk=on_disk)


def load_part(path: Path, slices: str | None) -> tuple[Scan, tuple[int, int] | None]:
    """Read a measurement file for some slices, those that `--slices` names; only these where they stand alone.

    Returns:
        The scan, and which of its slices are asked for: None, all.

    Raises:
        FileNotFoundError, ValueError: as `load`.
        UsageError: there are no such slices.
    """
    from medrecon.formats.measurement_file import load_scan, separable

    if slices is None or not path.is_file() or not (count := separable(path)):
        scan = load(path, on_disk=True)
        return scan, None if slices is None else parse_slices(slices, scan.slice_count)
    return load_scan(path, slices=parse_slices(slices, count), on_disk=True), None


def corrections(scan: Scan) -> dict[str, Any]:
    """Return what a report says of corrections of a scan; say aloud that metal is missing."""
    done = scan.provenance.get("corrected")
    if not done:
        return {}
    if isinstance(done, dict) and isinstance(metal := done.get("metal"), dict) and metal.get("pixels"):
        note(f"warning: metal was taken out of this measurement: the image lacks it ({metal['pixels']} pixels in all)")
    return {"corrected": done}


def check_device(name: str) -> None:
    """Complain of a device that is not there.

    Raises:
        UsageError: says what there is.
    """
    from medrecon.core import device

    try:
        device.check_device(name)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


@contextmanager
def usage() -> Iterator[None]:
    """Turn what does not go together into wrong usage."""
    from medrecon.pipeline.request import Request, RequestError

    try:
        yield
    except RequestError as error:
        names = {field.name for field in fields(Request)}
        raise UsageError(as_option(str(error), names)) from error
