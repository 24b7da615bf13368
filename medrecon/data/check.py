"""Is a data set what its manifest says, readable, and free of leaks between its splits?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medrecon.core import checksum
from medrecon.core.progress import OnProgress, silent
from medrecon.data.build import shared_subjects
from medrecon.data.cases import Case, inventory
from medrecon.data.duplicates import NEAR, Duplicates
from medrecon.data.manifest import SPLITS, Manifest
from medrecon.data.read import read_case
from medrecon.data.store import Store


def check_data(
    manifest: Manifest, root: Path | None = None, near: float = NEAR, on_progress: OnProgress = silent
) -> dict[str, Any]:
    """Files, subjects, readability and duplicates of a data set; `problems` says in words what is wrong.

    Raises:
        FileNotFoundError, ValueError: there is nothing that could be checked, and why.
    """
    if manifest.kind == "store":
        return check_store(Store(manifest.base(root)), near, on_progress)
    report: dict[str, Any] = {"data": manifest.name, "files": check_files(manifest, manifest.base(root), on_progress)}
    if manifest.kind is None and manifest.files:
        report["note"] = "kind is not set: only the downloaded files were checked"
        return {**report, "problems": _file_problems(report["files"])}
    found = inventory(manifest, root)
    duplicates = Duplicates()
    report["unreadable"] = dict(found.unreadable)
    slices: dict[str, int] = {}
    for number, case in enumerate(found.cases):
        try:
            data = read_case(case, manifest).data
        except (ValueError, OSError) as error:
            report["unreadable"][case.name] = str(error)
        else:
            duplicates.add(data, case.name, case.subject, case.split)
            slices[case.name] = len(data)
        on_progress(number + 1, len(found.cases))
    report["splits"] = _splits(found.cases, slices)
    report["subjects_in_two_splits"] = shared_subjects(found.cases)
    return _conclude(report, duplicates, near)


def check_store(store: Store, near: float = NEAR, on_progress: OnProgress = silent) -> dict[str, Any]:
    """The same of a training store, with the hashes of its shards."""
    damaged = store.damaged()
    report: dict[str, Any] = {"data": store.meta["name"], "damaged_shards": damaged}
    duplicates, cases, slices = Duplicates(), [], {}
    sound = [shard for shard in store.shards if shard.path.name not in damaged]
    volumes = [(shard, volume) for shard in sound for volume in shard.volumes]
    for number, (shard, v) in enumerate(volumes):
        duplicates.add(shard.data[v["start"] : v["start"] + v["count"]], v["case"], v["subject"], shard.split)
        cases.append(Case(v["case"], v["subject"], shard.split, ()))
        slices[v["case"]] = v["count"]
        on_progress(number + 1, len(volumes))
    report["splits"] = _splits(tuple(cases), slices)
    report["subjects_in_two_splits"] = shared_subjects(tuple(cases))
    return _conclude(report, duplicates, near)


def check_files(manifest: Manifest, base: Path, on_progress: OnProgress = silent) -> dict[str, list[str]]:
    """State of every file of the manifest: verified, no_sha256 (size right or unknown), wrong, missing."""
    state: dict[str, list[str]] = {"verified": [], "no_sha256": [], "wrong": [], "missing": []}
    for number, file in enumerate(manifest.files):
        path = base / file.path
        if not path.is_file():
            state["missing"].append(file.path)
        elif file.size is not None and path.stat().st_size != file.size:
            state["wrong"].append(f"{file.path}: {path.stat().st_size} bytes, not {file.size}")
        elif not file.sha256:
            state["no_sha256"].append(file.path)
        elif (now := checksum.of_file(path)) != file.sha256:
            state["wrong"].append(f"{file.path}: sha256 {now}, not {file.sha256}")
        else:
            state["verified"].append(file.path)
        on_progress(number + 1, len(manifest.files))
    return state


def _splits(cases: tuple[Case, ...], slices: dict[str, int]) -> dict[str, Any]:
    """Subjects, volumes and slices of each split; those in no split too."""
    table: dict[str, Any] = {}
    for split in (*SPLITS, None):
        members = [case for case in cases if case.split == split]
        if members:
            table[split or "none"] = {
                "subjects": len({case.subject for case in members}),
                "volumes": len(members),
                "slices": sum(slices.get(case.name, 0) for case in members),
            }
    return table


def _file_problems(files: dict[str, list[str]]) -> list[str]:
    return [f"file {text}" for text in files["wrong"]]


def _conclude(report: dict[str, Any], duplicates: Duplicates, near: float) -> dict[str, Any]:
    report["duplicates"] = {**duplicates.find(near), "within_a_subject": duplicates.repeats()}
    across = report["duplicates"]["across_splits"]
    problems = _file_problems(report["files"]) if "files" in report else []
    problems += [f"shard {name}: {why}" for name, why in report.get("damaged_shards", {}).items()]
    problems += [f"unreadable {name}: {why}" for name, why in report.get("unreadable", {}).items()]
    problems += [f"in two splits: {text}" for text in report["subjects_in_two_splits"]]
    if across["exact"] + across["near"]:
        problems.append(f"{across['exact']} exact and {across['near']} near-duplicate pairs of slices across splits")
    return {**report, "problems": problems}
