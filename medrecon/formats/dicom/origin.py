"""The images that a derived series refers to, and takes patient and study from: those that it was made from, or none.

Paths may lead elsewhere later, to another patient. So the files are known by their SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon.core import checksum
from medrecon.formats.dicom import files
from medrecon.formats.dicom import frames as dicom_frames
from medrecon.formats.dicom import series as dicom_series
from medrecon.formats.dicom.frames import Frame

if TYPE_CHECKING:
    from pydicom import Dataset


def find_sources(source: Mapping[str, Any], template: Path | None) -> list[Dataset]:
    """Return the headers of the images that a volume is from; none for a volume without a DICOM origin.

    Args:
        source: of the volume: `dicom`, paths, and `dicom_sha256`, the digests of the files; one of them, both or none.
        template: where the files are, if only their digests are known; else any series of the same patient.

    Raises:
        FileNotFoundError: a source image is gone.
        ValueError: a file is not what it was, or a template without the files, or with several series.
    """
    known = list(source.get("dicom_sha256", []))
    if template is not None:
        return _of_template(Path(template), [] if "dicom" in source else known)
    paths = [Path(name) for name in source.get("dicom", [])]
    if gone := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{gone[0]}: the source image is gone; give its series as template (--template)")
    found = []
    for path, digest in zip(paths, known or [""] * len(paths), strict=False):
        content = path.read_bytes()
        if digest and checksum.of_bytes(content) != digest:
            raise ValueError(
                f"{path}: is not the image that this one was made from, it was replaced or changed since; "
                "give the original series as template (--template)"
            )
        found.append(files.parsed(path, content=content))
    return found


def _of_template(template: Path, known: list[str]) -> list[Dataset]:
    headers = files.headers(template)
    if known:
        found = {}
        for header in headers:
            content = Path(header.filename).read_bytes()
            if (digest := checksum.of_bytes(content)) in known:
                found[digest] = files.parsed(Path(header.filename), content=content)
        if missing := len(set(known) - set(found)):
            raise ValueError(
                f"{template}: {missing} of the {len(known)} images that this one was made from are not there, or were "
                "changed since; give the folder that it was simulated from"
            )
        return [found[digest] for digest in known]
    if len({h.SeriesInstanceUID for h in headers}) > 1:
        listing = "\n".join(f"  {stack}" for stack in dicom_series.stacks(headers))
        raise ValueError(f"{template}: several series; give the folder of the one this image is from:\n{listing}")
    if strange := dicom_series.mixed(frames_of(headers)):
        raise ValueError(f"{template}: {strange}; give a folder of one patient and study")
    return headers


def frames_of(headers: Sequence[Dataset]) -> list[Frame]:
    """Return the frames of source images.

    Raises:
        ValueError: no usable geometry; names the file.
    """
    return [frame for header in headers for frame in dicom_frames.of(header)[0]]
