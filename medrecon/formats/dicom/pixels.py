"""Values of frames: decoded, padding taken out, rescaled to HU or a.u."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.core.volume import Modality
from medrecon.formats.dicom import rescale
from medrecon.formats.dicom.files import parsed
from medrecon.formats.dicom.frames import Frame

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


class Unreadable(ValueError):
    """The pixels of a frame are damaged; those of others may be whole."""


@dataclass
class Padding:
    """Voxels that the headers say are no image, counted.

    Attributes:
        voxels: all of them.
        seen: those that would have been read as something else than air or nothing.
        inside: of these, those that touch no other up to the border of the image, so may be tissue.
    """

    voxels: int = 0
    seen: int = 0
    inside: int = 0


def values(frames: Sequence[Frame], kind: Modality, first: int = 0) -> tuple[NDArray[np.float32], Padding]:
    """Return the values (Z, Y, X) of frames in HU (CT) or a.u. (MR), padding as air (-1024 HU) or 0, and its count.

    Args:
        first: the index of the first frame in its stack, for messages.

    Raises:
        ValueError: pixels that cannot be decoded, or no valid rescale; names the file.
        MissingCodec: no installed package decodes the file; names the one to install.
    """
    scales = rescale.of(frames, kind)
    for frame in {str(f.header.filename): f for f in frames}.values():
        _check_size(frame)
    data = np.empty((len(frames), frames[0].header.Rows, frames[0].header.Columns), np.float32)
    padding, empty = Padding(), AIR if kind == "CT" else 0.0
    for i, (frame, dataset, whole) in enumerate(_opened(frames)):
        try:
            stored, outside = _decoded(frame, dataset, whole)
        except Unreadable as error:
            raise Unreadable(f"{error}; restore it, or leave slice {first + i} out with --slices (slices=)") from error
        image = scales[i](stored)
        if not np.isfinite(image).all():
            raise ValueError(f"{frame}: NaN or infinite values after the rescale; check its slope and intercept")
        if outside is not None and outside.any():
            _count(padding, outside, image, empty)
            image[outside] = empty
        data[i] = np.maximum(image, AIR) if kind == "CT" else image
    _report(padding, frames)
    return data, padding


def _opened(frames: Sequence[Frame]) -> Iterator[tuple[Frame, Dataset, int]]:
    """Each frame with the dataset of its file and how many frames that holds, one file at a time in memory."""
    for name, members in groupby(frames, lambda frame: str(frame.header.filename)):
        dataset = parsed(Path(name), pixels=True)
        _check_kind(dataset)
        whole = _filled_up(dataset)
        for frame in members:
            yield frame, dataset, whole


def _check_kind(dataset: Dataset) -> None:
    """Raises ValueError for no pixels, or pixels that no CT or MR image has."""
    if other := [name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in dataset]:
        raise ValueError(
            f"{dataset.filename}: holds {other[0]}, which no CT or MR image has by the standard; write the values as "
            "whole numbers with RescaleSlope and RescaleIntercept, or as NIfTI"
        )
    if "PixelData" not in dataset:
        raise ValueError(f"{dataset.filename}: holds no pixels, cut short perhaps; restore or remove it")


def _filled_up(dataset: Dataset) -> int:
    """How many frames there are; pixels that end before they should are made as long, so that those can be decoded."""
    count = int(dataset.get("NumberOfFrames") or 1)
    if count == 1 or not _is_native(dataset):
        return count
    try:
        one = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    except (AttributeError, TypeError, ValueError):
        return count  # told when it is decoded
    pixels = dataset["PixelData"]
    if not one or (there := len(pixels.value)) >= count * one:
        return count
    pixels.value += bytes(count * one - there)
    return there // one


def _is_native(dataset: Dataset) -> bool:
    syntax = dataset.file_meta.TransferSyntaxUID
    return not syntax.is_compressed or bool(syntax.is_deflated)


def _check_size(frame: Frame) -> None:
    """Raises ValueError before memory is taken for more pixels than a file of that size can hold."""
    header, size = frame.header, Path(frame.header.filename).stat().st_size
    claimed = header.Rows * header.Columns * 4 * _number(frame, "NumberOfFrames", 1)
    if claimed > 2**26 + 1000 * size:
        raise ValueError(f"{header.filename}: claims {claimed >> 20} MiB of pixels, and has {size} bytes; damaged")


def _number(frame: Frame, name: str, default: int) -> int:
    value = frame.get(name)
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{frame}: {name} is {value!r}, no whole number") from error


def _decoded(frame: Frame, dataset: Dataset, whole: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Stored values (Y, X) of a frame, and which of them are padding."""
    _require_codec(dataset)
    shape = (frame.header.Rows, frame.header.Columns)
    try:
        if frame.index >= whole:
            raise ValueError(f"they end after frame {whole}")
        _check_pixels(dataset)
        stored = _stored(frame, dataset)
        padding = _padding(dataset)
        outside = None
        if padding is not None:
            low, high = padding
            words = stored if _within(dataset, low, high) else _stored(frame, dataset, correct_unused_bits=False)
            outside = (words >= low) & (words <= high)
    except Exception as error:
        raise Unreadable(f"{frame}: the pixels cannot be decoded, the file is damaged ({error})") from error
    if stored.shape != shape:
        raise Unreadable(f"{frame}: expected a grey image {shape[0]}x{shape[1]}, got pixels {stored.shape}")
    return stored, outside


def _stored(frame: Frame, dataset: Dataset, **options: bool) -> NDArray[Any]:
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    index = frame.index if frame.is_multiframe else None
    return decoder.as_array(dataset, index=index, raw=True, **options)[0]  # type: ignore[arg-type]


def _check_pixels(dataset: Dataset) -> None:
    """Raises ValueError where bits lie elsewhere than at the low end, or rows are left over."""
    stored, high = int(dataset.BitsStored), dataset.get("HighBit")
    if high is not None and int(high) != stored - 1:
        raise ValueError(f"HighBit is {high} with {stored} bits stored, expected {stored - 1}")
    if not _is_native(dataset):
        return
    row = int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    wanted = row * int(dataset.Rows) * int(dataset.get("NumberOfFrames") or 1)
    if (size := len(dataset.PixelData)) >= wanted + max(row, 2):
        raise ValueError(f"{size} bytes of pixels, and {wanted} expected")
    if size > wanted and (size % 2 or dataset.PixelData[wanted:].strip(b"\0")):
        raise ValueError(f"{size} bytes of pixels, and {wanted} expected: they may be shifted")
    if not dataset.file_meta.TransferSyntaxUID.is_deflated:
        _check_end(dataset)


def _check_end(dataset: Dataset) -> None:
    """Raises ValueError where the pixels end before the file does, and no element follows: they are shifted."""
    pixels = dataset["PixelData"]
    with Path(dataset.filename).open("rb") as stream:
        stream.seek((pixels.file_tell or 0) + len(pixels.value))
        rest = stream.read(4096)
    group = int.from_bytes(rest[:2], "little" if dataset.is_little_endian else "big")
    if rest.strip(b"\0") and (group < 0x7FE0 or len(rest) < 8):
        raise ValueError("bytes left over after the pixels, which may be shifted")


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """The lowest and the highest stored value that is padding."""
    limits = [_signed(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if limits[0] is None:
        if limits[1] is not None:
            raise ValueError("PixelPaddingRangeLimit without PixelPaddingValue")
        return None
    one, other = limits[0], limits[0] if limits[1] is None else limits[1]
    return min(one, other), max(one, other)


def _signed(dataset: Dataset, name: str) -> int | None:
    """A stored value told by the header, as the pixels are signed; headers write -2000 as 63536, and the reverse."""
    value = dataset.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        value = int.from_bytes(value, "little" if dataset.is_little_endian else "big")
    if not isinstance(value, int):
        raise ValueError(f"{name} is {value!r}, no whole number")
    whole = 1 << int(dataset.BitsAllocated)
    word = int(value) % whole
    return word - whole if int(dataset.PixelRepresentation) == 1 and word >= whole // 2 else word


def _within(dataset: Dataset, low: int, high: int) -> bool:
    """Tell whether values fit into the bits stored; padding may use the unused ones."""
    bits = int(dataset.BitsStored)
    least = -(1 << bits - 1) if int(dataset.PixelRepresentation) else 0
    return low >= least and high < least + (1 << bits)


def _count(padding: Padding, outside: NDArray[np.bool_], image: NDArray[np.float64], empty: float) -> None:
    from scipy import ndimage

    padding.voxels += int(outside.sum())
    seen = outside & ((image > empty) if empty else (image != empty))
    if not seen.any():
        return
    padding.seen += int(seen.sum())
    labels, _ = ndimage.label(outside)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    padding.inside += int((seen & ~np.isin(labels, border)).sum())


def _report(padding: Padding, frames: Sequence[Frame]) -> None:
    name = Path(frames[0].header.filename).parent if len(frames) > 1 else frames[0]
    value = frames[0].header.get("PixelPaddingValue")
    if padding.inside:
        log.warning(
            "%s: %d voxels inside the image have the value of its padding (%s); read as empty, check them",
            *(name, padding.inside, value),
        )
    if padding.voxels:
        level = logging.WARNING if padding.seen else logging.INFO
        log.log(level, "%s: %d voxels are padding (%s), read as air or 0", name, padding.voxels, value)


def _require_codec(dataset: Dataset) -> None:
    """Raises MissingCodec, with the package to install, when no decoder for the compression is there."""
    from pydicom.pixels.decoders.base import get_decoder

    if _is_native(dataset):
        return
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        package = next((p for start, p in CODECS.items() if syntax.name.startswith(start)), "none known")
        raise MissingCodec(
            f"{dataset.filename}: compressed as {syntax.name}, for which no decoder is installed; pip install {package}"
        )
