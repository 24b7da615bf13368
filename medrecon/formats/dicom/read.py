"""DICOM in: a CT or MR series, single slices or multi-frame, as a Volume with values in HU or a.u."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medrecon.core import checksum
from medrecon.core.volume import Modality, Volume
from medrecon.formats.dicom import series as dicom_series

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

log = logging.getLogger(__name__)

AIR = -1024.0  # HU; scanners pad the corners outside the field of view with -2000 or so, which is no attenuation
CODECS = {
    "JPEG Baseline": "python-gdcm",
    "JPEG Extended": "python-gdcm",
    "JPEG Lossless": "python-gdcm",
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPIP": "none",
    "High-Throughput JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "RLE": "pylibjpeg pylibjpeg-rle",
}


class MissingCodec(ValueError):
    """The file is compressed in a way no installed package can decode."""


def read_series(path: Path, series: str | None = None, modality: Modality | None = None) -> Volume:
    """Read the image stack of a folder, or one file.

    The rescale slope and intercept are applied. CT below -1024 HU becomes -1024 HU: padding is not tissue, and
    must not enter the physics. Slices are in order along their normal, and the affine keeps a gantry's tilt.

    Raises:
        ValueError: several stacks (lists them), missing, doubled or unevenly spaced slices, a codec that is not
            installed, a damaged file, or another modality than asked for.
    """
    stack = dicom_series.choose(dicom_series.stacks(dicom_series.headers(path)), series, path)
    first = stack.headers[0]
    kind: Modality = "CT" if dicom_series.kind(first) == "CT" else "MR"
    if modality is not None and modality != kind:
        raise ValueError(f"{path}: holds {kind} images, and {modality} was asked for")
    if any(h.get("BurnedInAnnotation") == "YES" for h in stack.headers):
        log.warning("%s: says that text is burned into the image; it may name the patient", path)
    if first.SOPClassUID in dicom_series.MULTIFRAME:
        values, affine = _multiframe(Path(first.filename))
    else:
        values = np.stack([_slice(h) for h in stack.headers])
        affine = dicom_series.affine(stack.headers)
    data = torch.from_numpy(values)
    if not bool(data.isfinite().all()):
        raise ValueError(f"{path}: NaN or infinite values after the rescale; check RescaleSlope and RescaleIntercept")
    files = [str(h.filename) for h in stack.headers]
    log.info("%s: %s %s, %s", path, kind, tuple(data.shape), "HU" if kind == "CT" else "a.u.")
    return Volume(
        data.clamp_min(AIR) if kind == "CT" else data,
        affine,
        units="HU" if kind == "CT" else "a.u.",
        modality=kind,
        source={"dicom": files, "dicom_sha256": [checksum.of_file(Path(name)) for name in files]},
    )


def _slice(header: Dataset) -> NDArray[np.float32]:
    """Values (Y, X) of one file, rescaled."""
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_modality_lut

    name = str(header.filename)
    _require_codec(header, name)
    try:
        dataset = dcmread(name)
        pixels = apply_modality_lut(dataset.pixel_array, dataset)
    except Exception as error:
        raise ValueError(f"{name}: the pixels cannot be decoded, the file is damaged ({error})") from error
    if pixels.shape != (header.Rows, header.Columns):
        raise ValueError(f"{name}: expected a grey image {header.Rows}x{header.Columns}, got pixels {pixels.shape}")
    return pixels.astype(np.float32)


def _multiframe(name: Path) -> tuple[NDArray[np.float32], Tensor]:
    """Values (Z, Y, X) and affine of an enhanced file, by highdicom."""
    import highdicom as hd

    try:
        image = hd.imread(name)
        _require_codec(image, str(name))
        volume = image.get_volume(dtype=np.float32, apply_real_world_transform=False)
    except MissingCodec:
        raise
    except Exception as error:
        raise ValueError(f"{name}: the frames do not form one regular volume, or are damaged ({error})") from error
    array = np.ascontiguousarray(volume.array)
    matrix = np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]  # (slice, row, column) to (x, y, z)
    if np.linalg.det(matrix[:3, :3]) < 0:  # along the normal, as for single slices
        matrix[:3, 3] += matrix[:3, 2] * (len(array) - 1)
        matrix[:3, 2] *= -1
        array = array[::-1].copy()
    return array, torch.from_numpy(dicom_series.LPS_TO_RAS @ matrix)


def _require_codec(header: Dataset, name: str) -> None:
    """Raises MissingCodec, with the package to install, when no decoder for the compression is there."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        package = next((p for start, p in CODECS.items() if syntax.name.startswith(start)), "none known")
        raise MissingCodec(
            f"{name}: compressed as {syntax.name}, for which no decoder is installed; pip install {package}"
        )
