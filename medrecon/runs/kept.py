"""The folder of a run: its finished batches, and the record of what they are of."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

from medrecon.core.stage import sync
from medrecon.pipeline.part import Part
from medrecon.runs.stored import SUFFIX, name_of, restore, store

RECORD, DONE, LOCK = "record.json", "done", ".lock"


class Differs(ValueError):
    """What is kept there is of another run."""


class Kept:
    """Finished batches in a folder.

    Attributes:
        folder: where they are; made if it is not there.
    """

    def __init__(self, folder: Path, record: dict[str, Any], *, anew: bool = False) -> None:
        """Open the folder of a run, or begin one.

        Args:
            record: JSON values, all that the result depends on.
            anew: drop what another run left, or the same.

        Raises:
            Differs: it holds batches of another run; names what differs.
            ValueError: the folder holds other things, or its record is damaged.
        """
        if anew:
            discard(folder)
        check_record(folder, record)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / RECORD).exists():
            for part in folder.glob(f"*{SUFFIX}"):  # without a record they are of no run: one was being discarded
                part.unlink(missing_ok=True)
            _write(folder / RECORD, json.dumps(record, indent=2) + "\n")

    def holds(self, index: slice) -> bool:
        """Tell whether a batch is there, in which slices may have failed."""
        return (self.folder / name_of(index)).is_file()

    def sound(self, index: slice) -> bool:
        """Tell whether a batch is there and none of its slices failed."""
        return self.holds(index) and not self.load(index).failed

    def load(self, index: slice) -> Part:
        """Return a batch as it was saved; see `restore`."""
        return restore(self.folder, index)

    def save(self, part: Part) -> None:
        """Keep a batch; see `store`."""
        store(part, self.folder)

    def drop(self, index: slice) -> None:
        """Remove a batch, if it is there."""
        (self.folder / name_of(index)).unlink(missing_ok=True)

    def finish(self, output: Path) -> None:
        """Note that the output is about to be written from these: once it is there they are no more needed."""
        _write(self.folder / DONE, os.fspath(output.name))


def check_record(folder: Path, record: dict[str, Any]) -> None:
    """Check that what is kept in a folder, if anything, is of this run.

    Raises:
        Differs, ValueError: as `Kept`.
    """
    if not folder.is_dir():
        return
    refuse_foreign(folder)
    if not (folder / RECORD).exists():
        return
    if differing := _differing(_read(folder / RECORD), json.loads(json.dumps(record))):
        raise Differs(
            f"{folder}: holds slices of another run: {differing}. Give --no-resume to begin anew and lose them, or "
            "choose another output"
        )


def drop_finished(folder: Path, output: Path) -> None:
    """Remove the folder of a run whose output was written, and which was killed before it could remove it."""
    mark = folder / DONE
    if mark.is_file() and output.exists() and output.stat().st_mtime_ns >= mark.stat().st_mtime_ns:
        discard(folder)


def discard(folder: Path) -> None:
    """Remove the folder of a run with all in it.

    Raises:
        ValueError: it holds other things.
    """
    if folder.is_dir():
        refuse_foreign(folder)
        (folder / RECORD).unlink(missing_ok=True)  # first: batches without a record are of no run
        shutil.rmtree(folder)


def refuse_foreign(folder: Path) -> None:
    """Raise ValueError where a folder holds what no run has written."""
    for item in folder.iterdir():
        if item.name not in (RECORD, DONE) and item.suffix not in (SUFFIX, LOCK) and not item.name.startswith("."):
            raise ValueError(f"{folder}: holds {item.name!r}, which medrecon did not write; choose another output")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{uuid4().hex}.{path.name}")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); give --no-resume to begin anew") from error
    return found


def _differing(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What is not the same, with both values; of groups what in them."""
    found = []
    for key in {**old, **new}:
        before, now = old.get(key), new.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found.append(f"{key}: {_differing(before, now)}")
        else:
            found.append(f"{key} was {_short(before)} and is {_short(now)}")
    return ", ".join(found)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}...{text[-4:]}"
