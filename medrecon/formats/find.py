"""The formats there are, and the one a file is of."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medrecon.core.discover import named
from medrecon.core.volume import Modality
from medrecon.formats.advice import advice
from medrecon.formats.base import BareImageReader, Format, ImageReader, ImageWriter, RawReader, ScanWriter
from medrecon.formats.common import hdf5
from medrecon.formats.common.naming import naming, require_regular


def found() -> list[Format]:
    """Return one of each format, sorted by name, those from outside medrecon last."""
    classes = named("medrecon.formats", Format, "summary")  # type: ignore[type-abstract]  # a base
    known = [cls() for cls in classes.values()]
    return sorted(known, key=lambda format: (not type(format).__module__.startswith("medrecon."), format.name))


def image_readers() -> list[ImageReader]:
    """Return the formats images are read from."""
    return [format for format in found() if isinstance(format, ImageReader)]


def image_writers() -> list[ImageWriter]:
    """Return the formats images are written in."""
    return [format for format in found() if isinstance(format, ImageWriter)]


def raw_readers() -> list[RawReader]:
    """Return the formats raw data are read from."""
    return [format for format in found() if isinstance(format, RawReader)]


def scan_writers() -> list[ScanWriter]:
    """Return the formats k-space is exported to."""
    return [format for format in found() if isinstance(format, ScanWriter)]


def by_content(path: Path) -> Format | None:
    """Return the format of a file or folder.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a pipe or a device, or a file that cannot be looked into.
    """
    require_regular(path)
    with naming(path):
        return next((format for format in found() if format.recognises(path)), None)


def info(path: str | Path, modality: Modality | None = None) -> dict[str, Any]:
    """Return what is in a file or folder of any format, as JSON values; no patient data.

    Args:
        modality: what a file holds that does not say it itself, such as NIfTI.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: an unknown format (lists the known ones), what is wrong with which file, or a modality given for
            one that says it itself.
    """
    path = Path(path)
    format = by_content(path)
    if format is None:
        raise unknown(path, "nothing medrecon reads", [f"{f.name}: {f.summary}" for f in found()])
    with naming(path):
        if modality is None:
            return format.info(path)
        if not isinstance(format, BareImageReader):
            bare = ", ".join(f.name for f in image_readers() if isinstance(f, BareImageReader))
            raise ValueError(f"{path}: {format.summary}: says its modality itself; --modality is for {bare}")
        return format.info_as(path, modality)


def unknown(path: Path, what: str, known: Sequence[str], format: Format | None = None) -> ValueError:
    """Make the error for a file that is not `what` was asked for: of another format, empty, damaged, or unknown."""
    if what_to_do := advice(path):
        return ValueError(f"{path}: {what}: {what_to_do}")
    if format is not None:
        return ValueError(f"{path}: {what}, but {format.summary}; {_command(path, format)}")
    listed = f" ({'; '.join(known)})" if known else ""
    if path.is_dir():
        return ValueError(f"{path}: {what}: no DICOM file in it{listed}")
    if path.is_file() and not path.stat().st_size:
        return ValueError(f"{path}: {what}: it is empty")
    if hdf5.is_hdf5(path):
        try:
            with hdf5.opened(path):
                pass
        except ValueError as damage:
            return damage
    return ValueError(f"{path}: {what}{listed}")


def _command(path: Path, format: Format) -> str:
    """What to do with a file of this format."""
    if isinstance(format, RawReader):
        return f"make a measurement file of it: medrecon import {path} -o scan.h5"
    if isinstance(format, ImageReader):
        return f"simulate a measurement of it: medrecon simulate {path} -o scan.h5 --modality ct (or mri)"
    return f"such as medrecon recon {path} -o image.nii.gz --solver tv"


def hint(wanted: str, known: Sequence[str]) -> str:
    """Return the nearest known name, or all of them."""
    near = difflib.get_close_matches(wanted, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
