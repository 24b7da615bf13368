"""Files that hold DICOM images: found in a folder, told from others, parsed whatever of their wrapping is missing."""

from __future__ import annotations

import io
import logging
import os
import stat
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medrecon.formats.dicom.strangers import SUFFIXES, check_strangers

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

SLICES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
MULTIFRAME = {
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
STORAGE = b"1.2.840.10008.5.1.4.1.1."  # how the SOP class of every image begins
DEFLATED = b"1.2.840.10008.1.2.1.99"
GREY = ("MONOCHROME1", "MONOCHROME2", "")
COLOUR = ("PALETTE COLOR", "RGB", "YBR_")


def found(path: Path) -> list[Path]:
    """Return the regular files of a folder, each once and at any depth, through links too; or the file itself.

    Links to nothing are among them, pipes and devices are not.

    Raises:
        OSError: a folder in it cannot be read.
    """
    if not path.is_dir():
        return [path] if path.is_file() else []
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for name in _walked(path):
        try:
            status = name.stat()
        except OSError:  # a link to nothing, or to itself
            files.append(name)
            continue
        if stat.S_ISREG(status.st_mode) and (key := (status.st_dev, status.st_ino)) not in seen:
            seen.add(key)
            files.append(name)
    return files


def _walked(path: Path) -> Iterator[Path]:
    """All names below a folder, sorted; a folder that links lead back to is entered once."""

    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    names: list[Path] = []
    for folder, inner, files in os.walk(path, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (key := (status.st_dev, status.st_ino)) in seen:
            inner.clear()
            continue
        seen.add(key)
        names += [Path(folder, name) for name in files]
    return iter(sorted(names))


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, with the preamble or, an image, without it; the name does not matter."""
    with path.open("rb") as stream:
        head = stream.read(1024)
    if head[128:132] == b"DICM":
        return True
    return head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0" and STORAGE in head


def first_file(path: Path) -> Path | None:
    """Return the first DICOM file, at any depth in a folder."""
    return next((name for name in found(path) if name.is_file() and is_dicom(name)), None)


def kind(header: Dataset) -> str:
    """Return "CT" or "MR", by SOP class."""
    return SLICES.get(header.SOPClassUID) or MULTIFRAME[header.SOPClassUID]


def is_multiframe(header: Dataset) -> bool:
    """Tell an enhanced file, which may hold several frames, from a single slice."""
    return header.SOPClassUID in MULTIFRAME


def parsed(path: Path, pixels: bool = False, content: bytes | None = None) -> Dataset:
    """Parse a file. What is missing of its meta information is taken from the data, and the other way round.

    Args:
        content: the bytes of the file, if they were read before.

    Raises:
        ValueError: damaged, or it inflates to far more than a file of its size holds.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        check_inflated(path)
        source = path if content is None else io.BytesIO(content)
        dataset = dcmread(source, stop_before_pixels=not pixels, force=True)
        dataset.filename = str(path)
        meta = dataset.file_meta
        if not len(dataset):
            raise ValueError("nothing after the meta information")
        other = _is_other(dataset)
        for name in ("SOPClassUID", "SOPInstanceUID"):
            if not dataset.get(name) and meta.get(f"MediaStorage{name}"):
                setattr(dataset, name, meta[f"MediaStorage{name}"].value)
        if not meta.get("TransferSyntaxUID"):
            if pixels and "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
                raise ValueError("the pixels are compressed, and TransferSyntaxUID does not say how")
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        if not other and not meta.TransferSyntaxUID.is_transfer_syntax:
            raise ValueError(f"unknown TransferSyntaxUID {meta.TransferSyntaxUID}")
    except Exception as error:
        raise ValueError(f"{path}: damaged DICOM file ({error}); restore or remove it") from error
    return dataset


def _is_other(dataset: Dataset) -> bool:
    """Tell whether a file says, without contradiction, that it is no CT or MR image; raises ValueError if damaged."""
    from pydicom.uid import UID

    own = dataset.get("SOPClassUID")
    told = {str(uid) for uid in (own, dataset.file_meta.get("MediaStorageSOPClassUID")) if uid}
    kinds = {SLICES.get(uid) or MULTIFRAME.get(uid) or uid for uid in told}
    if len(kinds) != 1:
        raise ValueError(f"SOPClassUID and MediaStorageSOPClassUID say {' and '.join(sorted(told)) or 'nothing'}")
    if (what := kinds.pop()) in ("CT", "MR"):
        if (modality := dataset.get("Modality")) in ("CT", "MR") and modality != what:
            raise ValueError(f"SOPClassUID is that of {what}, and Modality says {modality}")
        return False
    private = own and UID(what).is_valid and not what.startswith("1.2.840.10008.")
    if UID(what).name == what and not private:
        raise ValueError(f"unknown SOP class {what}")
    return True


def check_inflated(path: Path) -> None:
    """Look at how much a deflated file holds before it is parsed.

    Raises:
        ValueError: more than any image of its size does.
    """
    with path.open("rb") as stream:
        if DEFLATED not in (head := stream.read(2048)):
            return
        stream.seek(144 + int.from_bytes(head[140:144], "little"))  # after the group length and what it counts
        total, limit = 0, 2**26 + 50 * path.stat().st_size
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        while block := stream.read(2**16):
            while block:
                total += len(inflate.decompress(block, 2**20))
                block = inflate.unconsumed_tail
                if total > limit:
                    raise ValueError(f"deflated, and more than {limit >> 20} MiB when inflated")


def headers(path: Path) -> list[Dataset]:
    """Return the headers of the CT and MR images in a file or folder; localizers and colour images are left out.

    Raises:
        ValueError: a file that cannot be parsed, a link to nothing, or no CT or MR image.
    """
    kept: list[Dataset] = []
    strangers: list[Path] = []
    others: dict[str, list[Path]] = defaultdict(list)
    for name in found(path):
        if not _is_image_file(name):
            strangers.append(name)
            continue
        dataset = parsed(name)
        try:
            other = _unfit(dataset)
        except Exception as error:
            raise ValueError(f"{name}: damaged DICOM file ({error}); restore or remove it") from error
        if other:
            others[other].append(name)
        else:
            kept.append(dataset)
        if other.startswith(("colour", "mosaic")):
            log.warning("%s: left out, a %s: neither HU nor intensities of one slice", name, other)
    check_strangers(strangers, [Path(str(d.filename)) for d in kept])
    what = ", ".join(f"{len(names)} x {other}, such as {names[0]}" for other, names in others.items())
    if not kept:
        is_index = path.is_file() and "Media Storage Directory" in what
        hint = "; a DICOMDIR lists images, give the folder that it lies in" if is_index else ""
        raise ValueError(f"{path}: no CT or MR image here (found: {what or 'no DICOM file'}){hint}")
    if others:
        log.info("%s: left out %s", path, what)
    return kept


def _is_image_file(name: Path) -> bool:
    """Tell a DICOM file from others; raises ValueError for what was one and holds nothing now."""
    if not name.is_file():
        raise ValueError(f"{name}: a link to nothing, a slice may be missing; restore what it points to or remove it")
    if is_dicom(name):
        return True
    if name.suffix.lower() in SUFFIXES and not name.stat().st_size:
        raise ValueError(f"{name}: is empty, a slice may be missing; restore or remove it")
    return False


def _unfit(dataset: Dataset) -> str:
    """What else a file holds, empty for a grey CT or MR image."""
    sop_class = dataset.get("SOPClassUID", "")
    if "LOCALIZER" in (dataset.get("ImageType") or []):
        return "localizer"
    if sop_class not in SLICES and sop_class not in MULTIFRAME:
        return str(getattr(sop_class, "name", sop_class) or "no SOP class")
    shown, samples = str(dataset.get("PhotometricInterpretation") or "").strip(), dataset.get("SamplesPerPixel")
    if "MOSAIC" in (dataset.get("ImageType") or []):
        return "mosaic (a Siemens picture of many slices; export it as single slices or as an enhanced file)"
    if shown.startswith(COLOUR):
        return f"colour image ({shown})"
    dataset.get("SeriesInstanceUID")  # read here, where damage is told by name
    if shown not in GREY or samples not in (None, "", 1):
        raise ValueError(f"PhotometricInterpretation {shown!r} of {samples} samples a pixel")
    return ""
