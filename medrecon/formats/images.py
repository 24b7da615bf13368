"""Read and write volumes; the format is chosen by content when reading, by name when writing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medrecon.core.place import check_place, refuse
from medrecon.core.stack import Stack
from medrecon.core.volume import Modality, Volume
from medrecon.formats.base import BareImageReader, ImageReader, ImageWriter, Slices
from medrecon.formats.common.ct_values import PER_MM, CTUnits, check_units
from medrecon.formats.common.naming import naming, require_regular
from medrecon.formats.common.ours import refuse_foreign
from medrecon.formats.find import by_content, image_readers, image_writers, unknown


def read(
    path: str | Path,
    *,
    series: str | None = None,
    modality: Modality | None = None,
    slices: Slices | None = None,
    units: CTUnits | None = None,
) -> Volume:
    """Read a NIfTI file, a DICOM file, a folder with a DICOM series, or the reference image of a fastMRI file.

    Args:
        path: a file or a folder.
        series: which image stack of a folder with several, or which target ("rss", "esc") of a fastMRI file; the error
            without it lists them.
        modality: what a NIfTI file holds: "CT" or "MR"; MR unless given. DICOM says it itself, and so does the JSON
            beside a file that medrecon wrote.
        slices: from the number of slices there are, which to read (first, last + 1): in a DICOM series those left out
            may be damaged.
        units: of a NIfTI file, "1/mm" or "1/cm" for CT in attenuation, which is returned in 1/mm; HU unless given.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: unknown format, units for one that says them, values that the units cannot have, or what is wrong
            with which file.
    """
    path = _path(path)
    format = by_content(path)
    if not isinstance(format, ImageReader):
        raise unknown(path, "not an image medrecon reads", [f.images for f in image_readers()], format)
    first = 0

    def chosen(count: int) -> tuple[int, int]:
        nonlocal first
        first, stop = slices(count) if slices is not None else (0, count)
        return first, stop

    with naming(path):
        volume = format.read_slices(path, chosen, series, modality)
    _check_finite(volume, path, first)
    if not isinstance(format, BareImageReader):
        if units not in (None, volume.units):
            raise ValueError(f"{path}: {format.summary}: says itself that its values are {volume.units}, not {units}")
    elif volume.units == "1/mm" and units not in (None, "1/mm"):  # so says the JSON beside it
        raise ValueError(f"{path}: the JSON beside it says that its values are in 1/mm, not {units}")
    elif units is not None or (modality == "CT" and volume.units == "HU"):
        check_units(volume.data, units, path)
        if units is not None:
            volume = _converted(volume, units, path)
    return volume


def _converted(volume: Volume, units: CTUnits, path: Path) -> Volume:
    """The volume in the units the user said, attenuation in 1/mm."""
    if volume.modality != "CT":
        raise ValueError(f"{path}: units={units!r} are of CT, and it is read as {volume.modality}; give modality='CT'")
    if units == "HU":
        return replace(volume, units="HU")
    return replace(volume, units="1/mm", data=volume.data * PER_MM[units])


def _check_finite(volume: Volume, path: Path, first: int) -> None:
    """Raises ValueError for values that are no numbers; `first` is the index of the first slice in the file."""
    good = volume.data.isfinite().flatten(1).all(1)
    if not bool(good.all()):
        bad = first + int((~good).nonzero()[0])
        raise ValueError(f"{path}: NaN or infinite values, first in slice {bad}; replace them first, or leave it out")


def write(
    volume: Volume | Stack,
    path: str | Path,
    *,
    overwrite: bool = False,
    template: Path | None = None,
    description: str = "",
    report: str | None = None,
) -> Path:
    """Write NIfTI (name ends in .nii or .nii.gz), a DICOM series (a folder: no suffix, or a trailing slash), or an
    array for BART (.cfl).

    Args:
        volume: real values; take the magnitude of complex ones first. A stack is read slice by slice, twice or more.
        path: the output; written whole or not at all.
        overwrite: replace an existing output, which is refused otherwise.
        template: DICOM folder or file of the same patient that the derived series refers to; default: where
            the volume was read from. Without either the DICOM files have empty patient fields. Files that have
            changed since are refused.
        description: how the image was made, for DerivationDescription and the NIfTI sidecar.
        report: JSON text of NAME.report.json, which appears with the image.

    Returns:
        The path written.

    Raises:
        FileExistsError: the output exists.
        ValueError: complex or non-finite values, an unknown suffix, or a template that does not fit.
    """
    if not isinstance(volume, Volume | Stack):
        raise TypeError(f"write: expected a Volume, got {type(volume).__name__}")
    stack = Stack.of(volume) if isinstance(volume, Volume) else volume
    _path(path)
    name = os.fspath(path)
    for index, values in enumerate(stack):
        if values.is_complex():
            raise ValueError(f"{name}: the volume is complex; write its magnitude, volume.map(torch.abs)")
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: the volume has NaN or infinite values, first in slice {index}; nothing written")
    format = writer(name)
    _check_template(format, name, template)
    beside = {} if report is None else {report_path(name): report}
    for file in beside:
        refuse_foreign(file)
    return format.write_image(
        stack, Path(name), overwrite=overwrite, template=template, description=description, beside=beside
    )


def check_output(
    path: str | Path,
    voxels: int,
    *,
    overwrite: bool = False,
    template: Path | None = None,
    source: Mapping[str, Any] | None = None,
    report: bool = False,
) -> None:
    """Check before computing all that `write` would refuse, and that there is room.

    Args:
        voxels: of the image.
        source: of the volume to be written, see `Volume`.
        report: whether it is to have one.

    Raises:
        FileExistsError, ValueError: as `write`.
        OSError: a name too long, no permission, no room.
    """
    name = os.fspath(path)
    format = writer(name)
    _check_template(format, name, template)
    check_place(Path(name), voxels / 5 if name.endswith(".gz") else 2 * voxels, () if template is None else (template,))
    format.check(Path(name), source or {}, overwrite=overwrite, template=template)
    if report:
        check_place(report_path(name))
        refuse((report_path(name),), overwrite)
        refuse_foreign(report_path(name))


def _check_template(format: ImageWriter, name: str, template: Path | None) -> None:
    """Raises FileNotFoundError or ValueError for a template that is not there, or that the format has no use for."""
    if template is None:
        return
    require_regular(template)
    if format.suffixes:
        raise ValueError(f"{name}: is written as {format.name}, and a template (--template) is for a folder of DICOM")


def writer(name: str) -> ImageWriter:
    """Return the format of an output by its name, which a slash may end.

    Raises:
        ValueError: no such format.
    """
    for format in image_writers():
        if format.writes(name):
            return format
    raise ValueError(f"{name}: unknown output type; use {outputs()}")


def report_path(path: str | Path) -> Path:
    """Return where the report on an output lies: image.nii.gz has image.report.json, a folder one beside it."""
    return Path(path).parent / f"{stem(path)}.report.json"


def outputs() -> str:
    """Return the endings of image files that can be written, as a list for people."""
    files = [suffix for format in image_writers() for suffix in format.suffixes]
    folders = [f"a folder (end it with /) for {format.name}" for format in image_writers() if not format.suffixes]
    *first, last = files + folders
    return f"{', '.join(first)} or {last}" if first else last


def stem(path: str | Path) -> str:
    """Return the name of an output without the ending of its format: what belongs to it is named after it."""
    name = Path(path).name
    endings = [suffix for format in image_writers() for suffix in format.suffixes if name.lower().endswith(suffix)]
    return name[: -max(map(len, endings))] if endings else name


def _path(path: str | Path) -> Path:
    """A path, or TypeError."""
    if not isinstance(path, str | Path):
        raise TypeError(f"path: expected a str or a pathlib.Path, got {path!r}")
    return Path(path)
