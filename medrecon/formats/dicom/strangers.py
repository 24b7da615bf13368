"""Files beside DICOM images that are no DICOM: damaged slices among them would shorten the volume."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

SUFFIXES = (".dcm", ".ima")
UID = b"1.2.840.10008."  # how the identifiers of DICOM itself begin
STARTS = (b"\x02\0", b"\x08\0", b"\0\x08")  # the first group of a file without preamble
SIZES_ALIKE = 0.01


def check_strangers(strangers: Sequence[Path], images: Sequence[Path]) -> None:
    """Look at what is no DICOM: what must have been an image is refused, what could have been one is told.

    Args:
        strangers: of one folder with `images`.

    Raises:
        ValueError: named like an image beside it, or with the ending of one and DICOM inside; names the file.
    """
    names, endings = {_alike(path) for path in images}, {path.suffix for path in images}
    sizes = [path.stat().st_size for path in images]
    for path in strangers:
        inside = _inside(path, endings)
        named = _alike(path) in names
        if named or (path.suffix in endings and inside == PARTS):
            like = ", though named like the images beside it" if named else f": it has {PARTS}"
            raise ValueError(
                f"{path}: is no DICOM file{like}: empty, damaged or cut short, and a slice may be missing; restore or "
                "remove it"
            )
        size = path.stat().st_size
        alike = size and not _hidden(path) and any(abs(size - other) <= SIZES_ALIKE * other for other in sizes)
        if why := inside or ("the size of the images beside it" if alike else ""):
            log.warning(
                "%s: is no DICOM file, and may have been one: it has %s. Left out; a slice may be missing, at an end "
                "of the volume too",
                path,
                why,
            )


def _alike(path: Path) -> tuple[Path, str]:
    """What the names of a series have in common: all but the numbers."""
    return path.parent, re.sub(r"[0-9]+", "0", path.name)


PARTS = "parts of a DICOM header"


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")  # what desktops leave: .DS_Store, ._image.dcm


def _inside(path: Path, endings: set[str]) -> str:
    """What makes a file look like a damaged image; empty where nothing does."""
    with path.open("rb") as stream:
        head = stream.read(4096)
    if b"\0" in head and (UID in head or b"DICM" in head):
        return PARTS
    if _hidden(path):
        return ""
    if path.suffix.lower() in SUFFIXES:
        return "the name of one"
    if not head:
        return "" if path.suffix else "nothing in it, and a name without an ending"
    if head[:2] in STARTS and len(head) > 7 and head[2:4] != b"\0\0":
        return "the beginning of one"
    if not head[:128].strip(b"\0"):
        return "the empty preamble of one"
    return "the ending of one, and is no text" if path.suffix in endings and not _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    try:
        return "\0" not in head[:-4].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return False
