"""SHA-256 of files, and of what is in arrays: the same content, the same digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def of_file(path: Path) -> str:
    """Return the hexadecimal digest of a file, read piece by piece."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_bytes(content: bytes) -> str:
    """Return the hexadecimal digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def of_content(*parts: Tensor | NDArray[np.generic] | str) -> str:
    """Return the hexadecimal digest of values and texts, one after the other, whatever device and strides they have."""
    return of_parts(parts)


def of_parts(parts: Iterable[Tensor | NDArray[np.generic] | str]) -> str:
    """Return what `of_content` does, of parts that are made as they are needed: one is held at a time."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            array = part.detach().cpu().resolve_conj().numpy() if isinstance(part, Tensor) else part
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # no copy of it
    return digest.hexdigest()
