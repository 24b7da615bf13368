"""JSON files that medrecon writes beside images, told from those of others."""

from __future__ import annotations

import json
from pathlib import Path


def refuse_foreign(path: Path) -> None:
    """Keep a JSON file that something else wrote from being replaced.

    Raises:
        FileExistsError: it is there, and does not say that medrecon wrote it.
    """
    if path.exists() and not _is_ours(path):
        raise FileExistsError(f"{path}: medrecon did not write it, and would replace it; choose another name")


def _is_ours(path: Path) -> bool:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(said, dict):
        return False
    versions = said.get("versions")
    return "medrecon_version" in said or (isinstance(versions, dict) and "medrecon" in versions)
