"""A manifest as TOML text: what the standard library reads and does not write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medrecon.data.manifest import Manifest


def manifest_text(manifest: Manifest, comment: str) -> str:
    """The manifest's own values, without those at their defaults."""
    table = manifest.model_dump(mode="json", exclude_defaults=True)
    lines = [f"# {comment}", *_pairs({k: v for k, v in table.items() if not _nested(v)})]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *_pairs(value)]
        elif _nested(value):
            for entry in value:
                lines += ["", f"[[{key}]]", *_pairs(entry)]
    return "\n".join(lines) + "\n"


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON strings, numbers and booleans are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
