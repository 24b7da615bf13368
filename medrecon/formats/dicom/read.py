"""DICOM in: a CT or MR series, single slices or multi-frame, as a Volume with values in HU or a.u."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from medrecon.core import checksum
from medrecon.core.volume import Modality, Volume
from medrecon.formats.base import Slices
from medrecon.formats.common.ct_values import check_shift
from medrecon.formats.dicom import files, geometry, pixels
from medrecon.formats.dicom import series as dicom_series
from medrecon.formats.dicom.complete import check_complete

log = logging.getLogger(__name__)


def read_series(
    path: Path, series: str | None = None, modality: Modality | None = None, slices: Slices | None = None
) -> Volume:
    """Read the image stack of a folder, or one file.

    The rescale slope and intercept are applied. CT below -1024 HU becomes -1024 HU, and so does padding, whatever its
    value: it is not tissue, and must not enter the physics; in MR it becomes 0. Slices are in order along their normal,
    and the affine keeps a gantry's tilt. `source` names the files and, where there is any, the count of padded voxels.
    Of slices that `slices` leaves out only the headers are read.

    Raises:
        ValueError: several stacks (lists them), missing, doubled or unevenly spaced slices, no valid rescale, a codec
            that is not installed, a damaged file, or another modality than asked for.
    """
    headers = files.headers(path)
    stack = dicom_series.choose(dicom_series.stacks(headers), series, path)
    kind: Modality = "CT" if files.kind(stack.frames[0].header) == "CT" else "MR"
    if modality is not None and modality != kind:
        raise ValueError(f"{path}: holds {kind} images, and {modality} was asked for")
    if any(frame.get("BurnedInAnnotation") == "YES" for frame in stack.frames):
        log.warning("%s: says that text is burned into the image; it may name the patient", path)
    if path.is_dir():
        check_complete(path, headers, stack.frames[0].get("SeriesInstanceUID"))
    start, stop = slices(len(stack.frames)) if slices else (0, len(stack.frames))
    frames, affine = stack.frames[start:stop], geometry.affine(stack.frames)
    affine[:3, 3] += affine[:3, 2] * start
    values, padding = pixels.values(frames, kind, start)
    log.info("%s: %s %s, %s", path, kind, values.shape, "HU" if kind == "CT" else "a.u.")
    names = list(dict.fromkeys(str(f.header.filename) for f in frames))
    source: dict[str, Any] = {"dicom": names, "dicom_sha256": [checksum.of_file(Path(name)) for name in names]}
    if padding.voxels:
        source["padded_voxels"] = padding.voxels
    data = torch.from_numpy(values)
    if kind == "CT":
        check_shift(data, path)
    return Volume(data, affine, units="HU" if kind == "CT" else "a.u.", modality=kind, source=source)
