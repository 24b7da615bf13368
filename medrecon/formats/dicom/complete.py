"""Whether a series lacks images at its ends, where no gap tells: by their numbers, and by how many there should be."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon.formats.dicom.files import is_multiframe

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

FEW = 0.1  # of the images: more that are missing were left out on purpose


def check_complete(folder: Path, headers: Sequence[Dataset], uid: Any) -> None:
    """Warn where a few images of a series of single slices are missing by its own numbers."""
    images = [h for h in headers if h.get("SeriesInstanceUID") == uid and not is_multiframe(h)]
    few = max(1, round(FEW * len(images)))
    _check_numbers(folder, images, few)
    _check_counts(folder, images, few)


def _check_numbers(folder: Path, images: Sequence[Dataset], few: int) -> None:
    numbers = {n for h in images if (n := _whole(h, "InstanceNumber")) is not None and n >= 0}
    if len(numbers) == len(images) > 1:
        highest = max(numbers)
        gone = sorted(set(range(min(1, *numbers), highest + 1)) - numbers) if highest < 2 * len(images) + 1 else []
        if 0 < len(gone) <= few:
            told = ", ".join(map(str, gone[:5])) + (", ..." if len(gone) > 5 else "")
            log.warning(
                "%s: its images are numbered up to %d (InstanceNumber), and %s is not there; a slice may be missing at "
                "an end of the volume",
                folder,
                highest,
                told,
            )


def _check_counts(folder: Path, images: Sequence[Dataset], few: int) -> None:
    there = Counter((_whole(h, "AcquisitionNumber"), _whole(h, "ImagesInAcquisition")) for h in images)
    for (_, wanted), count in there.items():
        if wanted is not None and 0 < wanted - count <= few:
            log.warning(
                "%s: says that its acquisition has %d images (ImagesInAcquisition), and %d are there; a slice may be "
                "missing at an end of the volume",
                folder,
                wanted,
                count,
            )


def _whole(header: Dataset, name: str) -> int | None:
    try:
        value = header.get(name)
        return None if value is None or value == "" else int(value)
    except Exception:  # damaged: it tells nothing
        return None
