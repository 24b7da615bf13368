"""A finished batch as a file: its values, and what is said of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

from medrecon.core import checksum
from medrecon.core.keeping import Tensors
from medrecon.core.stage import sync
from medrecon.pipeline.log import line
from medrecon.pipeline.part import Part

SUFFIX = ".part"


def name_of(index: slice) -> str:
    """Return the file name of a batch."""
    return f"{index.start:06d}-{index.stop:06d}{SUFFIX}"


def store(part: Part, folder: Path) -> None:
    """Write a batch; see `put`."""
    told = {
        "start": part.start,
        "stop": part.stop,
        "chi2": list(part.chi2.items()),
        "histories": part.histories,
        "unfinished": part.unfinished,
        "failed": [(item, line(error)) for item, error in part.failed.items()],
        "calls": part.calls,
        "network": part.network,
        "seconds": part.seconds,
    }
    put(folder / name_of(slice(part.start, part.stop)), {"values": part.values}, told)


def restore(folder: Path, index: slice) -> Part:
    """Read a batch, to the last bit as it was; of what was raised only the text is left.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: damaged: names the file.
    """
    path = folder / name_of(index)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    tensors, told = get(path)
    try:
        return _part(tensors["values"], told)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def put(path: Path, tensors: Tensors, told: dict[str, Any]) -> None:
    """Write tensors and JSON values, whole or not at all: under a name of its own, and then renamed.

    Raises:
        OSError: a full disk, or the folder is gone.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    told = {**told, "sha256": checksum.of_content(*(tensors[name] for name in sorted(tensors)))}
    temporary = path.with_name(f".{uuid4().hex}.{path.name}")
    try:
        save_file(tensors, temporary, {"part": json.dumps(told)})
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def get(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what `put` wrote.

    Raises:
        ValueError: damaged: names the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}  # no dict
            told = json.loads(opened.metadata()["part"])
        if told["sha256"] != checksum.of_content(*tensors.values()):
            raise ValueError("its values have changed")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    return tensors, told


def damaged(path: Path, error: Exception) -> ValueError:
    """Return the error of a part that cannot be read, with what to do."""
    return ValueError(f"{path}: damaged ({error}); remove it, and the same command makes it again")


def _part(values: Any, told: dict[str, Any]) -> Part:
    return Part(
        told["start"],
        told["stop"],
        values,
        chi2=dict(told["chi2"]),
        histories=[(count, history) for count, history in told["histories"]],
        unfinished=told["unfinished"],
        failed={item: ValueError(text) for item, text in told["failed"]},
        calls=Counter(told["calls"]),
        network=Counter(told["network"]),
        seconds=told["seconds"],
    )
