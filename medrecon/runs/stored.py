"""A finished batch as a file: its values, and what is said of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

from medrecon.core import checksum
from medrecon.core.stage import sync
from medrecon.pipeline.log import line
from medrecon.pipeline.part import Part

SUFFIX = ".part"


def name_of(index: slice) -> str:
    """Return the file name of a batch."""
    return f"{index.start:06d}-{index.stop:06d}{SUFFIX}"


def store(part: Part, folder: Path) -> None:
    """Write a batch, whole or not at all: under a name of its own, and then renamed.

    Raises:
        OSError: a full disk, or the folder is gone.
    """
    from safetensors.torch import save_file

    values = part.values.contiguous()
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
        "sha256": checksum.of_content(values),
    }
    target = folder / name_of(slice(part.start, part.stop))
    temporary = folder / f".{uuid4().hex}.{target.name}"
    try:
        save_file({"values": values}, temporary, {"part": json.dumps(told)})
        sync(temporary)
        os.replace(temporary, target)
        sync(folder)
    finally:
        temporary.unlink(missing_ok=True)


def restore(folder: Path, index: slice) -> Part:
    """Read a batch, to the last bit as it was; of what was raised only the text is left.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: damaged: names the file.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / name_of(index)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as opened:
            values, told = opened.get_tensor("values"), json.loads(opened.metadata()["part"])
        if told["sha256"] != checksum.of_content(values):
            raise ValueError("its values have changed")
        return _part(values, told)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and the same command makes it again") from error


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
