"""Shards of the store while they grow: raw rows behind room for the .npy header, which is written last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medrecon.core import checksum
from medrecon.data.manifest import Split

HEADER = 128
"""bytes before the rows: .npy format 1.0, padded as NumPy pads it"""


class ShardWriter:
    """Appends volumes to shards, one shard a split and slice size, the next one when it is full.

    Args:
        entries: journal of the volumes an earlier run completed; anything beyond them is cut off.

    Raises:
        ValueError: a shard is shorter than the journal says.
    """

    def __init__(self, folder: Path, entries: list[dict[str, Any]], shard_bytes: int) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self._entries = entries
        self._rows: dict[str, int] = {}
        self._shape: dict[str, tuple[Split, int, int]] = {}
        for entry in entries:
            self._rows[entry["shard"]] = entry["start"] + entry["count"]
            self._shape[entry["shard"]] = (entry["split"], *entry["shape"])
        for name, rows in self._rows.items():
            path, length = self._partial(name), HEADER + rows * self._row_bytes(name)
            if (folder / name).exists() and not path.exists():
                continue  # finished already
            if not path.exists() or path.stat().st_size < length:
                raise ValueError(f"{path}: shorter than its journal says; remove {folder} and index again")
            os.truncate(path, length)
        for path in folder.glob("*.npy.partial"):
            if path.name.removesuffix(".partial") not in self._rows:
                path.unlink()  # its first volume was not completed

    def _partial(self, name: str) -> Path:
        return self.folder / f"{name}.partial"

    def _row_bytes(self, name: str) -> int:
        _, height, width = self._shape[name]
        return 2 * height * width

    def append(self, split: Split, data: Tensor) -> dict[str, Any]:
        """Slices (N, H, W) int16, on disk when this returns; where they are."""
        key = (split, int(data.shape[1]), int(data.shape[2]))
        open_ones = [name for name, shape in self._shape.items() if shape == key]
        name = open_ones[-1] if open_ones else ""
        if not name or self._rows[name] * self._row_bytes(name) >= self.shard_bytes:
            number = sum(shape[0] == split for shape in self._shape.values())
            name = f"{split}-{number:03d}.npy"
            self._shape[name], self._rows[name] = key, 0
        start = self._rows[name]
        if start and not self._partial(name).exists():  # an earlier run had finished it
            os.replace(self.folder / name, self._partial(name))
        with self._partial(name).open("r+b" if start else "wb") as stream:
            stream.seek(HEADER + start * self._row_bytes(name))
            stream.write(np.ascontiguousarray(data.numpy().astype("<i2", copy=False)).data)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
        self._rows[name] += len(data)
        return {"shard": name, "split": split, "shape": list(key[1:]), "start": start}

    def finish(self) -> list[dict[str, Any]]:
        """Headers, final names, hashes: the shards as index.json lists them."""
        shards = []
        for name, rows in self._rows.items():
            split, height, width = self._shape[name]
            path = self.folder / name
            if self._partial(name).exists():
                with self._partial(name).open("r+b") as stream:
                    stream.write(npy_header((rows, height, width)))
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(self._partial(name), path)
            volumes = [
                {k: v for k, v in e.items() if k not in ("shard", "split", "shape")}
                for e in self._entries
                if e["shard"] == name
            ]
            shards.append(
                {
                    "file": name,
                    "split": split,
                    "shape": [rows, height, width],
                    "dtype": "int16",
                    "sha256": checksum.of_file(path),
                    "volumes": volumes,
                }
            )
        return sorted(shards, key=lambda shard: str(shard["file"]))


def npy_header(shape: tuple[int, int, int]) -> bytes:
    """HEADER bytes before int16 data of that shape (NumPy Enhancement Proposal 1, version 1.0)."""
    text = f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11) + b"\n"
