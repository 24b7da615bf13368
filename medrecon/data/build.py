"""Building the training store: volume by volume, so that an interrupted run goes on where it stopped.

A volume is appended to its shard, `NAME.npy.partial`, and synced, before its line enters the journal; what the journal
does not know is cut off on resuming. Shards get their header and name, and index.json appears, when all is done.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from medrecon import __version__
from medrecon.core import atomic, checksum
from medrecon.core.progress import OnProgress, silent
from medrecon.core.stage import clear
from medrecon.data.cases import Case, Inventory, inventory
from medrecon.data.manifest import SPLITS, Manifest
from medrecon.data.read import read_case, slope
from medrecon.data.shard import ShardWriter
from medrecon.data.store import FORMAT, INDEX, VERSION, Store
from medrecon.data.toml import manifest_text
from medrecon.data.values import resized

JOURNAL = "journal.jsonl"


def build_store(
    manifest: Manifest,
    folder: Path,
    root: Path | None = None,
    size: int | None = None,
    shard_bytes: int = 1 << 34,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Index a data set into `folder`, or go on with it; what the store then holds.

    Args:
        size: side of the slices; None keeps each as it is, one shard for every size.
        shard_bytes: a shard gets no further volume once it is that large.

    Raises:
        FileExistsError: the folder holds another store, or something else.
        ValueError: nothing to index, a subject in two splits, another run is at work there, or the data or settings
            are not those of the interrupted run.
    """
    found = inventory(manifest, root)
    _refuse_leaks(found, manifest)
    settings = {
        "manifest": checksum.of_file(manifest.path),
        "data": _fingerprint(found),
        "size": size,
        "shard_bytes": shard_bytes,
        "version": VERSION,
    }
    cases = [case for case in found.cases if case.split is not None]
    if not cases:
        raise ValueError(f"{manifest.path}: no volume is in a split; see [split], train, val and test")
    if folder.is_dir():
        clear(folder)  # a run that died may have finished the index
    if (folder / INDEX).exists():
        if Store(folder).meta["settings"] != settings:
            raise FileExistsError(f"{folder}: holds the store of other data or settings; give another folder")
        (folder / JOURNAL).unlink(missing_ok=True)
        return _summary(Store(folder))
    with (
        atomic.named(folder, "make space, and run the command again to go on"),
        _journal(folder, settings) as (stream, entries),
    ):
        skipped = dict(found.unreadable)
        done = {entry["case"] for entry in entries}
        writer = ShardWriter(folder, entries, shard_bytes)
        for number, case in enumerate(cases):
            if case.name not in done:
                try:
                    stored = read_case(case, manifest)
                except (ValueError, OSError) as error:
                    skipped[case.name] = str(error)
                    continue
                data = stored.data if size is None else resized(stored.data, size)
                entries.append(
                    {
                        **_entry(case, manifest, root),
                        **writer.append(case.split or "train", data),
                        "count": len(data),
                        "scale": stored.scale,
                        "clipped": stored.clipped,
                    }
                )
                _write_line(stream, entries[-1])
            on_progress(number + 1, len(cases))
        if not entries:
            raise ValueError(f"{manifest.path}: no volume could be read; first: {next(iter(skipped.values()))}")
        shards = writer.finish()
    unassigned = sorted({case.subject for case in found.cases if case.split is None})
    _write_index(folder, manifest, settings, shards, skipped, unassigned)
    (folder / JOURNAL).unlink()
    return _summary(Store(folder))


def shared_subjects(cases: tuple[Case, ...]) -> list[str]:
    """Subjects, and patients by their header, in two splits."""
    where: dict[str, set[str]] = {}
    for case in cases:
        for key in filter(None, (case.subject, case.patient and f"PatientID {case.patient}")):
            where.setdefault(key, set()).add(case.split or "")
    return sorted(f"{key}: {', '.join(sorted(parts - {''}))}" for key, parts in where.items() if len(parts - {""}) > 1)


def _refuse_leaks(found: Inventory, manifest: Manifest) -> None:
    if leaks := shared_subjects(found.cases):
        raise ValueError(f"{manifest.path}: subjects in two splits: {leaks[:5]}; split by subject")


def _fingerprint(found: Inventory) -> str:
    """Of names, sizes, subjects and splits: the pixels are not read for it."""
    lines = [
        json.dumps([c.name, c.subject, c.split, [(p.name, p.stat().st_size) for p in c.files]]) for c in found.cases
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _journal:
    """The journal, locked: its stream and the entries an earlier run completed."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings

    def __enter__(self) -> tuple[Any, list[dict[str, Any]]]:
        path = self.folder / JOURNAL
        if not path.exists() and self.folder.exists() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder}: is not empty and no interrupted store; give another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stream = path.open("a+b")
        try:
            return self.stream, self._entries()
        except BaseException:
            self.stream.close()
            raise

    def _entries(self) -> list[dict[str, Any]]:
        _lock(self.stream, self.folder)
        self.stream.seek(0)
        whole = [line for line in self.stream if line.endswith(b"\n")]  # the last may be torn
        self.stream.truncate(sum(map(len, whole)))
        if not whole:
            _write_line(self.stream, self.settings)
        elif json.loads(whole[0]) != self.settings:
            raise ValueError(f"{self.folder}: was begun with other data or settings; remove it, or give another folder")
        return [json.loads(line) for line in whole[1:]]

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def _lock(stream: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{folder}: another `medrecon data index` is at work there") from error


def _write_line(stream: Any, entry: dict[str, Any]) -> None:
    stream.write(json.dumps(entry).encode() + b"\n")
    stream.flush()
    os.fsync(stream.fileno())


def _entry(case: Case, manifest: Manifest, root: Path | None) -> dict[str, Any]:
    base = manifest.base(root)
    files = [path.relative_to(base).as_posix() for path in case.files]
    return {
        "case": case.name,
        "subject": case.subject,
        "files": files,
        **({"frames": list(case.frames)} if case.frames else {}),
    }


def _write_index(
    folder: Path,
    manifest: Manifest,
    settings: dict[str, Any],
    shards: list[dict[str, Any]],
    skipped: dict[str, str],
    unassigned: list[str],
) -> None:
    mine = Manifest.model_validate(
        {
            **manifest.model_dump(
                include={
                    "name",
                    "modality",
                    "units",
                    "content",
                    "licence",
                    "licence_checked",
                    "citation",
                    "doi",
                    "url",
                    "access",
                    "sources",
                }
            ),
            "format": "medrecon store",
            "kind": "store",
        }
    )
    with atomic.file(folder / "manifest.toml", overwrite=True) as path:
        path.write_text(manifest_text(mine, "The data as `medrecon data index` stored them."), encoding="utf-8")
    index = {
        "format": FORMAT,
        "version": VERSION,
        "medrecon_version": __version__,
        **manifest.model_dump(include={"name", "modality", "units", "licence", "citation"}),
        "dtype": "int16",
        "slope": slope(manifest),
        "offset": 0.0,
        "value": "stored * slope + offset, in the units of the original after * scale of the volume",
        "settings": settings,
        "skipped": skipped,
        "unassigned": unassigned,
        "shards": shards,
    }
    with atomic.file(folder / INDEX) as path:
        path.write_text(json.dumps(index) + "\n", encoding="utf-8")


def _summary(store: Store) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for split in SPLITS:
        if shards := store.split(split):
            volumes = [v for shard in shards for v in shard.volumes]
            splits[split] = {
                "subjects": len({v["subject"] for v in volumes}),
                "volumes": len(volumes),
                "slices": sum(v["count"] for v in volumes),
                "shards": [f"{s.path.name} {'x'.join(map(str, s.shape))}" for s in shards],
                "clipped_voxels": sum(v["clipped"] for v in volumes),
            }
    return {
        "store": str(store.folder),
        **splits,
        "skipped": store.meta["skipped"],
        "unassigned_subjects": store.meta["unassigned"],
    }
