"""The training store: slices as int16 in memory-mapped .npy shards, and index.json that says whose they are.

STORE/index.json         written last: without it the store is not finished
STORE/manifest.toml      kind = "store", for `medrecon train`
STORE/train-000.npy      (N, H, W) int16, little-endian, never pickled
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.core import checksum
from medrecon.data.manifest import Split

FORMAT, VERSION, INDEX = "medrecon-store", 1, "index.json"


@dataclass(frozen=True)
class Place:
    """One slice: its subject, the file it is from, its number in its volume and how many that has."""

    subject: str
    file: str
    number: int
    count: int
    scale: float


@dataclass(frozen=True)
class Shard:
    """A file of slices of one size and one split, and the volumes in it, one after the other."""

    path: Path
    split: Split
    shape: tuple[int, int, int]
    sha256: str
    volumes: tuple[dict[str, Any], ...]

    @cached_property
    def data(self) -> Tensor:
        """(N, H, W) int16, memory-mapped; changes stay in memory.

        Raises:
            ValueError: missing, cut short, or not the array that the index names.
        """
        try:
            array = np.load(self.path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{self.path}: missing or damaged ({error}); index the data again") from error
        if array.shape != self.shape or array.dtype != np.dtype("<i2"):
            raise ValueError(f"{self.path}: {array.dtype} {array.shape}, and the index says int16 {self.shape}")
        return torch.from_numpy(array)

    def places(self) -> Iterator[Place]:
        """Of every slice, in the order of the data."""
        for v in self.volumes:
            files = v["files"]
            for i in range(v["count"]):
                name = files[i] if len(files) == v["count"] else files[0]
                yield Place(v["subject"], name, i, v["count"], v["scale"])


class Store:
    """A finished training store; `meta` is index.json without the shards.

    Raises:
        FileNotFoundError: no index.json: not a store, or its building was interrupted.
        ValueError: not an index this version reads.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: no store, or not finished; run `medrecon data index` (again)")
        try:
            self.meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if (self.meta["format"], self.meta["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {self.meta['format']} {self.meta['version']}")
            self.shards = tuple(
                Shard(folder / Path(s["file"]).name, s["split"], tuple(s["shape"]), s["sha256"], tuple(s["volumes"]))
                for s in self.meta.pop("shards")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not an index this version reads ({error})") from error

    @property
    def slope(self) -> float:
        """value = stored * slope (* the scale of the volume, for its original units)."""
        return float(self.meta["slope"])

    def split(self, split: Split) -> list[Shard]:
        return [shard for shard in self.shards if shard.split == split]

    def damaged(self) -> dict[str, str]:
        """Shards that are not what was written, with what is wrong; reads all of them."""
        found = {}
        for shard in self.shards:
            if not shard.path.is_file():
                found[shard.path.name] = "missing"
            elif (now := checksum.of_file(shard.path)) != shard.sha256:
                found[shard.path.name] = f"sha256 {now[:12]}..., and the index says {shard.sha256[:12]}..."
        return found
