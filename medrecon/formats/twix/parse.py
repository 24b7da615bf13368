"""Twix files: version, and measurements as twixtools parses them, after a walk that makes sure that it will return."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

MOST_INDEX = 4096
"""Of an array in a header; the largest real ones have some hundred entries."""
LONGEST_WORD = 4096
LONGEST_HEADER = 2**26


def start_of(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def version_of(path: Path) -> str | None:
    """Version VE (multi-raid: VD, VE, XA) or VB, by the lengths at the start of the file; None: neither."""
    size, start = path.stat().st_size, start_of(path, 32)
    if len(start) < 32:
        return None
    first, second = struct.unpack("<II", start[:8])
    offset, _ = struct.unpack("<QQ", start[16:32])
    if first < 10000 and 1 <= second <= 64 and 10240 <= offset < size:
        return "VE"
    name = start[8:16].split(b"\0")[0]
    return "VB" if 10000 <= first < size and 1 <= second <= 64 and name.isalpha() else None


def measurements_of(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the version, and the measurements as twixtools has them, which reports trouble by printing only.

    Raises:
        ValueError: names the file: an unknown version, truncated or damaged.
        ImportError: `twixtools` is not installed.
    """
    version = version_of(path) if path.is_file() else None
    if version is None:
        begins = f"it begins with {start_of(path, 8).hex(' ')}" if path.is_file() else "it is a folder"
        raise ValueError(
            f"{path}: not a twix file of a version that is known (VB, VD, VE): {begins}; convert it to ISMRMRD, "
            "or export it again"
        )
    try:
        import twixtools
    except ImportError as error:
        raise ImportError("reading twix needs the package twixtools: pip install 'medrecon[mri]'") from error
    with path.open("rb") as file:
        try:
            _walk(file, version, path.stat().st_size)
        except (ValueError, struct.error) as error:
            raise ValueError(f"{path}: truncated or damaged: {error}") from error
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found: list[dict[str, Any]] = twixtools.read_twix(
                str(path), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False, keep_acqend=True
            )
    except Exception as error:  # whatever a damaged file makes it raise
        raise ValueError(f"{path}: truncated or damaged, its headers cannot be parsed ({error})") from error
    if not found or "error" in said.getvalue():
        raise ValueError(f"{path}: truncated or damaged: {said.getvalue().strip() or 'no measurement in it'}")
    return version, found


def _walk(file: BufferedReader, version: str, size: int) -> None:
    """Go from block to block as twixtools does, which never returns from one of no length."""
    for number, (start, stop) in enumerate(_spans(file, version, size)):
        file.seek(start)
        length, buffers = struct.unpack("<II", file.read(8))
        if not 8 <= length <= min(LONGEST_HEADER, size - start) or buffers > 64:
            raise ValueError(f"the header of measurement {number} has {length} bytes in {buffers} parts")
        _check_header(file.read(length - 8))
        at = start + length
        while at + 128 < stop:
            step, last = _block(file, version, at)
            if at + step > size:
                raise ValueError(f"its readouts go on to byte {at + step}, the file has {size}; copy it again")
            at += step
            if last:
                break


def _spans(file: BufferedReader, version: str, size: int) -> Iterator[tuple[int, int]]:
    """Where each measurement begins and ends."""
    if version == "VB":
        yield 0, size
        return
    file.seek(4)
    (count,) = struct.unpack("<I", file.read(4))
    table = file.read(152 * count)
    for number in range(count):
        start, length = struct.unpack_from("<QQ", table, 152 * number + 8)
        if start + length > size:
            raise ValueError(f"measurement {number} goes on to byte {start + length}, the file has {size}")
        yield start, (start + length if length or count > 1 else size)


def _block(file: BufferedReader, version: str, at: int) -> tuple[int, bool]:
    """Length of the measurement block at a byte, and whether it ends the measurement."""
    from twixtools import mdh_def
    from twixtools.mdb import Mdb_base

    kind = mdh_def.Scan_header if version == "VE" else mdh_def.VB17_header
    block = Mdb_base(version_is_ve=version == "VE")
    file.seek(at)
    block.mdh = kind()
    if file.readinto(block.mdh) < 128:
        raise ValueError(f"the block at byte {at} breaks off")
    last = bool(block.is_flag_set("ACQEND"))
    if last or block.is_flag_set("SYNCDATA"):
        step = int(block.mdh.FlagsAndDMALength) % 2**25
    else:
        head, each = (192, 32) if version == "VE" else (0, 128)
        step = head + int(block.mdh.UsedChannels) * (each + 8 * int(block.mdh.SamplesInScan))
    if step == 0 or (not last and not block.is_flag_set("SYNCDATA") and not block.mdh.UsedChannels):
        raise ValueError(f"the block at byte {at} has no samples of any receiver")
    return step, last


def _check_header(text: bytes) -> None:
    """Refuse what twixtools' parser would take hours or all memory for: an array of millions, words without an end."""
    for index in re.finditer(rb"\[([0-9]{4,})\]", text):
        if len(index[1]) > 9 or int(index[1]) > MOST_INDEX:
            raise ValueError(f"its header has an array of {index[1][:20].decode()} entries")
    for part in re.finditer(rb"### ASCCONV BEGIN.*?### ASCCONV END", text, re.DOTALL):
        if re.search(rb"[^\s=]{%d}|\s{%d}" % (LONGEST_WORD, LONGEST_WORD), part[0]):
            raise ValueError(f"its header has a word or a gap of more than {LONGEST_WORD} characters")
