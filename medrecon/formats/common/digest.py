"""One SHA-256 over all that an HDF5 file holds, in the attribute `sha256` of its root; of large datasets by slices.

`sha256/NAME`, (Z, 32) bytes, are the digests of the slices of the dataset NAME, so that slices can be read, and
checked, alone. The attribute covers every other name, type, shape and value, these tables among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.formats.common import hdf5
from medrecon.formats.common.storage import check_stored

KEY = "sha256"
"""Of the attribute of the root, and of the group with the tables."""


def seal(h5: Any, apart: Sequence[str]) -> None:
    """Add the digests to a file that is complete otherwise.

    Args:
        apart: datasets that get digests of their slices, those of rank 3 and more.
    """
    for name in apart:
        if name in h5 and h5[name].ndim > 2:
            h5[f"{KEY}/{name}"] = _of_slices(h5[name])
    h5.attrs[KEY] = _of_all(h5)


def check(h5: Any, read: Mapping[str, Any], start: int) -> None:
    """Compare a file with its digests; a file without, from an older version or another program, passes.

    Args:
        read: arrays or tensors on the CPU, by dataset, that begin with slice `start`.

    Raises:
        ValueError: something is not as it was written.
    """
    if KEY not in h5.attrs:
        return
    if h5.attrs[KEY] != _of_all(h5):
        raise ValueError(f"damaged, or changed since it was written: its attribute {KEY!r} does not fit; make it again")
    for name, array in read.items():
        if f"{KEY}/{name}" not in h5:
            continue
        wrong = (_of_slices(array) != h5[f"{KEY}/{name}"][start : start + len(array)]).any(1)
        if wrong.any():
            where = start + int(wrong.argmax())
            raise ValueError(f"{name}: slice {where} is damaged, or changed since it was written; make it again")


def _of_slices(array: Any) -> NDArray[np.uint8]:
    digests = [hashlib.sha256(np.ascontiguousarray(array[i]).data).digest() for i in range(len(array))]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _of_all(h5: Any) -> str:
    """Of all but what has a table, in the order of the names."""
    digest, groups, seen = hashlib.sha256(), [h5], set()
    while groups:
        group = groups.pop()
        if (place := _place(group)) in seen:
            continue
        seen.add(place)
        _add_attributes(digest, group)
        for name in sorted(group):
            item = group[name]
            _add(digest, item.name)
            if not hdf5.is_dataset(item):
                groups.append(item)
                continue
            check_stored(item, item.name[1:])
            _add_attributes(digest, item)
            _add(digest, f"{item.dtype.str} {item.shape}")
            if group.name != "/" or f"{KEY}/{name}" not in h5:
                digest.update(np.ascontiguousarray(item[()]).data)
    return digest.hexdigest()


def _place(group: Any) -> int:
    """The address of an object, which may have several names."""
    import h5py

    return int(h5py.h5o.get_info(group.id).addr)


def _add_attributes(digest: Any, item: Any) -> None:
    for key in sorted(item.attrs):
        if (item.name, key) == ("/", KEY):
            continue
        value = item.attrs[key]
        _add(digest, f"{item.name} {key}")
        if isinstance(value, str):
            _add(digest, value)
        else:
            array = np.asarray(value)
            _add(digest, f"{array.dtype.str} {array.shape} {array.tolist() if array.dtype.hasobject else ''}")
            digest.update(b"" if array.dtype.hasobject else np.ascontiguousarray(array).data)


def _add(digest: Any, text: str) -> None:
    digest.update(f"{len(text)} {text}".encode("utf-8", "surrogateescape"))
