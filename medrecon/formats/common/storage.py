"""What HDF5 itself does not check: that a dataset is in proportion to its file, and that its heaps have an end.

HDF5 File Format Specification, version 3.0, III.E "Global Heap": texts and arrays of variable length lie in collections
`GCOL`, of objects that each say how long they are. The library walks a collection without end where a free one says 0.
"""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SMALL = 2**26
"""Bytes that any dataset may have: 64 MiB."""
RATIO = 100
"""Times as large as its storage in the file a dataset may be: zeros of padding compress well, numbers do not."""
COLLECTION = b"GCOL\x01\x00\x00\x00"


def check_stored(dataset: Any, key: str, rows: tuple[int, int] | None = None) -> None:
    """Check that a dataset was written whole, and is in proportion to what the file holds of it, before it is read.

    Args:
        rows: (start, stop) along the first axis; what lies outside is not looked at.

    Raises:
        ValueError: chunks that were never written, which would read as zeros, or a claimed size that the file does
            not justify.
    """
    if dataset.shape is None or not dataset.size:
        return
    size, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if stored > (room := dataset.file.id.get_filesize()):  # of what is not compressed HDF5 says what is claimed
        raise ValueError(f"{key}: {stored} bytes are claimed, and the file has {room}; truncated or damaged")
    if dataset.chunks is not None:
        chunks = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        written = dataset.id.get_num_chunks()
        if written < chunks and rows is not None:
            _check_rows(dataset, key, rows)
        elif written < chunks:
            raise ValueError(f"{key}: {chunks - written} of {chunks} chunks were never written; the file is incomplete")
    elif not stored:
        raise ValueError(f"{key}: of shape {dataset.shape}, was never written; the file is incomplete")
    if rows is not None:  # whole chunks are decompressed
        step = dataset.chunks[0] if dataset.chunks is not None else 1
        size = size // len(dataset) * min(-(-rows[1] // step) * step - rows[0] // step * step, len(dataset))
    if size > SMALL + RATIO * stored:
        raise ValueError(
            f"{key}: shape {dataset.shape} of {dataset.dtype} is {size / 2**20:.0f} MiB, the file holds "
            f"{stored / 2**20:.3g} MiB of it; damaged, or made to fill the memory"
        )


def _check_rows(dataset: Any, key: str, rows: tuple[int, int]) -> None:
    """Raises ValueError for the first row of these of which a chunk was never written."""
    steps, there = dataset.chunks, set()
    dataset.id.chunk_iter(lambda info: there.add(info.chunk_offset))
    first = range(rows[0] // steps[0] * steps[0], rows[1], steps[0])
    others = [range(0, n, c) for n, c in zip(dataset.shape[1:], steps[1:], strict=True)]
    for place in itertools.product(first, *others):
        if place not in there:
            raise ValueError(
                f"{key}: slice {max(place[0], rows[0])} was never written; the file is incomplete: leave it out with "
                "slices"
            )


def check_text(dataset: Any, key: str) -> None:
    """Check how long a text claims to be before it is read: HDF5 takes the memory first.

    A text of variable length is stored as its length (4 bytes), and an address in a heap (HDF5 File Format
    Specification, version 3.0, IV.B).

    Raises:
        ValueError: longer than the file.
    """
    offset, room = dataset.id.get_offset(), dataset.file.id.get_filesize()
    if offset is None or dataset.dtype.kind != "O":
        return
    with Path(dataset.file.filename).open("rb") as file:
        file.seek(offset)
        stored = file.read(min(16 * math.prod(dataset.shape), room))
    for at in range(0, len(stored) - 3, 16):
        if (length := struct.unpack_from("<I", stored, at)[0]) > room:
            raise ValueError(f"{key}: claims {length} letters, and the file has {room} bytes; truncated or damaged")


def check_sequences(table: Any, names: tuple[str, ...], key: str) -> None:
    """Check how long sequences of variable length in the fields of a table claim to be, as `check_text`.

    Chunks that are compressed are not looked at.

    Raises:
        ValueError: longer than the file, and in which row.
    """
    import h5py

    kind, room = table.id.get_type(), table.file.id.get_filesize()
    fields = [kind.get_member_index(name.encode()) for name in names if name in (table.dtype.names or ())]
    fields = [i for i in fields if kind.get_member_type(i).get_class() == h5py.h5t.VLEN]
    size, step = kind.get_size(), table.chunks[0] if table.chunks is not None else len(table)
    with Path(table.file.filename).open("rb") as file:
        for first, offset in _plain_chunks(table):
            file.seek(offset)
            count = min(step, len(table) - first)
            rows = np.frombuffer(file.read(count * size)[: count * size], np.uint8)
            rows = rows[: len(rows) // size * size].reshape(-1, size)
            for i in fields:
                at = kind.get_member_offset(i)
                lengths = np.ascontiguousarray(rows[:, at : at + 4]).view("<u4")[:, 0]
                if (long := lengths > room).any():
                    row = int(np.argmax(long))
                    raise ValueError(
                        f"{key}: row {first + row} claims {lengths[row]} numbers, and the file has {room} bytes; "
                        "truncated or damaged"
                    )


def _plain_chunks(table: Any) -> Iterator[tuple[int, int]]:
    """The first row, and the byte in the file, of each part of a table that lies there as it is."""
    if table.chunks is None:
        yield from [(0, table.id.get_offset())] if table.id.get_offset() is not None else []
    elif not table.id.get_create_plist().get_nfilters():
        found: list[Any] = []
        table.id.chunk_iter(found.append)
        yield from ((info.chunk_offset[0], info.byte_offset) for info in found)


def check_heaps(path: Path) -> None:
    """Walk the global heaps of an HDF5 file as the library does.

    Raises:
        ValueError: a heap that has no end; HDF5 would never return from reading it.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(COLLECTION)
        while start >= 0:
            (size,) = struct.unpack_from("<Q", content, start + 8) if start + 16 <= len(content) else (0,)
            end = min(start + size, len(content))
            _walk(content, start + 16, end, path)
            start = content.find(COLLECTION, max(end, start + 8))


def _walk(content: mmap.mmap, at: int, end: int, path: Path) -> None:
    while at + 16 <= end:
        number, length = struct.unpack_from("<H6xQ", content, at)
        step = length if number == 0 else 16 + -(-length // 8) * 8
        if step == 0:
            raise ValueError(f"{path}: truncated or damaged: the heap of its arrays breaks off at byte {at}")
        at += step
