"""The YAML file of a training run."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from medrecon.cli.options import UsageError

if TYPE_CHECKING:
    from medrecon.training.config import TrainConfig


def load_config(path: Path, device: str | None) -> TrainConfig:
    """Read and check it.

    Raises:
        UsageError: no such file, not YAML, or a wrong key or value: names the file, the key and the nearest valid key.
    """
    import yaml
    from pydantic import ValidationError

    from medrecon.training.config import TrainConfig

    if not path.is_file():
        raise UsageError(f"{path}: no such configuration file")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        raise UsageError("; ".join(f"{path}: {_explain(TrainConfig, dict(e))}" for e in error.errors())) from error
    return config if device is None else config.on(device)


def _explain(model: Any, entry: dict[str, Any]) -> str:
    *parents, key = (str(part) for part in entry["loc"]) if entry["loc"] else ("",)
    path = []
    for parent in parents:
        kinds = _kinds(model)
        if parent in kinds:  # pydantic's name of the choice, not a key of the file
            model = kinds[parent]
            continue
        path.append(parent)
        field = getattr(model, "model_fields", {}).get(parent)
        model = getattr(field, "annotation", None)
    text = f"{'.'.join([*path, key])}: {entry['msg']}"
    if entry["type"] != "extra_forbidden":
        return text
    near = difflib.get_close_matches(key, list(getattr(model, "model_fields", {})), 1, 0.5)
    return f"{text}; did you mean {near[0]}?" if near else text


def _kinds(annotation: Any) -> dict[str, Any]:
    """The models of a tagged union, by tag."""
    from pydantic import Tag

    members = [get_args(member) for member in get_args(annotation)]
    return {str(m[1].tag): m[0] for m in members if len(m) == 2 and isinstance(m[1], Tag)}
