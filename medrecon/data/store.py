"""The training store: slices as int16 in memory-mapped .npy shards, and index.json that says whose they are.

STORE/index.json         written last: without it the store is not finished
STORE/manifest.toml      kind = "store", for `medrecon train`
STORE/train-000.npy      (N, H, W) int16, little-endian, never pickled
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator
from torch import Tensor

from medrecon.core import checksum
from medrecon.core.plain_text import read_json
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


class Volumes(BaseModel):
    """What index.json says of a volume in a shard."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)

    case: str
    subject: str
    files: list[str] = Field(min_length=1)
    start: int = Field(ge=0)
    count: int = Field(gt=0)
    scale: float = Field(gt=0)
    clipped: int = Field(ge=0)


class ShardEntry(BaseModel):
    """What index.json says of a shard: its volumes lie within it, one after the other."""

    model_config = ConfigDict(extra="allow", frozen=True)

    file: str = Field(min_length=1)
    split: Split
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    volumes: list[Volumes]

    @model_validator(mode="after")
    def _within(self) -> ShardEntry:
        end = 0
        for volume in self.volumes:
            if volume.start != end:
                raise ValueError(f"{volume.case} begins at slice {volume.start}, not at {end}")
            end += volume.count
        if end != self.shape[0]:
            raise ValueError(f"its volumes have {end} slices, its shape {self.shape[0]}")
        return self


class Head(BaseModel):
    """What of index.json numbers are computed with."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str
    slope: float = Field(gt=0)
    settings: dict[str, Any]
    skipped: dict[str, str]
    unassigned: list[str]
    shards: list[ShardEntry]


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
            self.meta: dict[str, Any] = read_json(path)
            if (self.meta["format"], self.meta["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {self.meta['format']} {self.meta['version']}")
            head = Head.model_validate(self.meta)
            self.shards = tuple(
                Shard(folder / Path(s.file).name, s.split, s.shape, s.sha256, tuple(v.model_dump() for v in s.volumes))
                for s in head.shards
            )
            del self.meta["shards"]
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}: not an index this version reads ({key}: {first['msg']})") from error
        except (ValueError, KeyError) as error:
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
