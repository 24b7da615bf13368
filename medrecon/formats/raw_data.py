"""Read what scanners and public data sets deliver before reconstruction: raw data into a `Scan`."""

from __future__ import annotations

from pathlib import Path

from medrecon.acquisition.line_integrals import check_line_integrals
from medrecon.acquisition.options import OptionError, RawOptions
from medrecon.core.scan import Scan
from medrecon.formats.base import RawReader
from medrecon.formats.common.naming import naming, require_regular
from medrecon.formats.find import by_content, hint, raw_readers, unknown

__all__ = ["OptionError", "RawOptions", "read_by", "read_raw", "recognise"]

DEFAULT = RawOptions()


def read_raw(path: str | Path, options: RawOptions = DEFAULT) -> Scan:
    """Read a raw data file or folder; the format is recognised by its content unless `options` names it.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: an unknown format (lists the known ones), an option the format does not use, or what is wrong
            with which file and key.
    """
    path = Path(path)
    return read_by(recognise(path, options), path, options)


def read_by(format: RawReader, path: Path, options: RawOptions) -> Scan:
    """Read a raw data file by this format.

    Raises:
        ValueError: what is wrong with which file and key, or samples that are no numbers, none in float32, or no line
            integrals.
    """
    with naming(path):
        scan = format.read_scan(path, options)
        good = scan.data.isfinite().flatten(1).all(1)
        if not bool(good.all()):
            bad = int((~good).nonzero()[0])
            raise ValueError(f"NaN or infinite samples, or beyond float32, first in slice {bad}; the file is damaged")
        if scan.modality == "ct":
            check_line_integrals(scan.data, path)
    return scan


def recognise(path: str | Path, options: RawOptions = DEFAULT) -> RawReader:
    """Return the format of a file, which has a use for all the options given.

    Raises:
        FileNotFoundError, ValueError: as `read_raw`, but for errors within the file.
    """
    path = Path(path)
    require_regular(path)
    format = _named(options.format) if options.format is not None else _recognised(path)
    if unused := sorted(set(options.given()) - set(format.uses)):
        raise OptionError(f"{', '.join(unused)}: not for {format.name}, which uses {', '.join(format.uses)}")
    return format


def _named(name: str) -> RawReader:
    known = {format.name: format for format in raw_readers()}
    if name not in known:
        raise OptionError(f"unknown raw format {name!r}; {hint(name, list(known))}")
    return known[name]


def _recognised(path: Path) -> RawReader:
    format = by_content(path)
    if not isinstance(format, RawReader):
        listed = [f"{f.name}: {f.summary}" for f in raw_readers()]
        raise unknown(path, "not raw data medrecon reads", listed, format)
    return format
