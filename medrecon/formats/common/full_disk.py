"""A file for HDF5 to write into that never fails: what the disk refuses is remembered, and told when it is closed.

HDF5 must not meet a full disk: a file whose last flush failed cannot be closed, and the process dies of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

SMALL = 2**20
"""Bytes of a piece that is kept in memory once the disk has failed; HDF5 reads its own small structures again."""


class PatientFile:
    """What h5py asks of a file object: `seek`, `readinto`, `write`, `truncate`, `flush`.

    Attributes:
        error: the first one that the disk, or an interrupt, raised. Nothing is written after it.
    """

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self._file = path.open("w+b", buffering=0)
        self._at = self._end = 0
        self._kept: list[tuple[int, bytes]] = []

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        self._at = offset + (self._end if whence == os.SEEK_END else self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        """Return the byte where it is."""
        return self._at

    def write(self, data: memoryview | bytes) -> int:
        """Write all, or remember what went wrong and keep what may be read again."""
        view, start = memoryview(data).cast("B"), self._at
        if self.error is None:
            self._try(lambda: self._write_all(view, start))
        if self.error is not None and len(view) <= SMALL:
            self._kept.append((start, bytes(view)))
        self._at = start + len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def readinto(self, buffer: memoryview) -> int:
        """Read what was written, or was to be; zeros where it is lost."""
        view, start = memoryview(buffer).cast("B"), self._at
        view[:] = bytes(len(view))
        self._try(lambda: self._read(view, start))
        for at, piece in self._kept:
            low, high = max(at, start), min(at + len(piece), start + len(view))
            if low < high:
                view[low - start : high - start] = piece[low - at : high - at]
        self._at = start + len(view)
        return len(view)

    def read(self, size: int) -> bytes:
        """As `readinto`; h5py tells a file object by it."""
        buffer = bytearray(size)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def truncate(self, size: int) -> int:
        """Set the length."""
        self._end = size
        if self.error is None:
            self._try(lambda: self._file.truncate(size))
        return size

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError, KeyboardInterrupt and the like: what was remembered.
        """
        self._try(self._file.close)
        if self.error is not None:
            raise self.error

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # an interrupt too: HDF5 gets by with none of them
            self.error = self.error or error

    def _write_all(self, view: memoryview, start: int) -> None:
        while len(view):
            done = os.pwrite(self._file.fileno(), view, start)
            view, start = view[done:], start + done

    def _read(self, view: memoryview, start: int) -> None:
        while len(view) and (got := os.preadv(self._file.fileno(), [view], start)):
            view, start = view[got:], start + got
