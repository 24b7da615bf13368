"""The YAML file of a training run, and the run as it is told on a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from medrecon.cli.options import UsageError, yaml_content
from medrecon.cli.progress import progress
from medrecon.cli.show import note

if TYPE_CHECKING:
    from medrecon.training.config import TrainConfig
    from medrecon.training.loop.config import LoopConfig
    from medrecon.training.loop.steps import Report
    from medrecon.training.run import Data


def load_config(path: Path, device: str | None) -> TrainConfig:
    """Read and check a configuration.

    Raises:
        UsageError: no such file, not YAML, or a wrong key or value: names the file, the key and the nearest valid key.
    """
    from pydantic import ValidationError

    from medrecon.training.checks import check_config
    from medrecon.training.config import TrainConfig

    content = yaml_content(path, str(path)) or {}
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        raise UsageError("; ".join(f"{path}: {_explain(TrainConfig, dict(e))}" for e in error.errors())) from error
    config = config if device is None else config.on(device)
    try:
        check_config(config)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return config


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


def train_parts(what: str, config: TrainConfig, folder: Path, expert: str | None, quiet: bool) -> dict[str, Any]:
    """Train; return the scores of the autoencoder or of one expert, or the card of the prior that is complete now."""
    from medrecon.training import run
    from medrecon.training.loop.distributed import rank

    experts = config.diffusion.experts
    if expert is not None and expert not in experts:
        raise UsageError(f"--expert {expert}: the configuration has {', '.join(experts)}")
    data, quiet = run.load_data(config), quiet or rank() > 0
    if rank() == 0:
        _tell_data(config, data)
    if what == "autoencoder":
        with _part("autoencoder", config.autoencoder_loop, folder / "autoencoder", quiet) as report:
            return run.train_autoencoder(config, folder, report, data)
    scores: dict[str, Any] = {}
    for name in [] if what == "prior" else [expert] if expert else experts:
        with _part(name, experts[name].loop, folder / "diffusion" / name, quiet) as report:
            scores |= run.train_diffusion(config, folder, report, name, data)
    return scores if expert else run.assemble(config, folder, data)


def _tell_data(config: TrainConfig, data: Data) -> None:
    counts = [(len(part.subjects), len(set(part.subjects))) for part in data]
    (slices, subjects), (held_out, others) = counts
    note(
        f"{config.manifest}: training on {slices} slices of {subjects} subjects, "
        f"validation on {held_out} slices of {others}"
    )
    for split, count in (("training", subjects), ("validation", others)):
        if count < 5:
            note(
                f"warning: {count} {split} subject{'s' * (count > 1)}: what is learned, or measured, on so few says "
                "little about others"
            )


@contextmanager
def _part(name: str, loop: LoopConfig, folder: Path, quiet: bool) -> Iterator[Report]:
    """Progress of one network, and what an earlier run left of it."""
    from medrecon.training.loop.checkpoint import NAME, training_facts
    from medrecon.training.loop.distributed import rank
    from medrecon.training.loop.schedule import progress as share

    if (folder / NAME).exists() and rank() == 0:
        facts = training_facts(folder)
        so_far = f"{facts['steps']} steps, {facts['minutes']} minutes so far"
        if share(loop, facts["steps"], 60 * facts["minutes"]) < 1:
            note(f"{folder}: goes on, {so_far}")
        else:
            note(f"{folder}: is done, {so_far}; raise steps or minutes to go on, or give another folder to start anew")
    with progress(f"train {name}", quiet) as bar:

        def report(step: int, steps: int, loss: float, scores: dict[str, float]) -> None:
            bar(step, steps)
            if scores and not quiet:
                note(f"step {step}: loss {loss:.4g}, {', '.join(f'{k} {v:.4g}' for k, v in scores.items())}")

        yield report


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return what one wants to see at once of a model card; scores as they are."""
    if "validation" not in result:
        return result
    ratios = {
        name: {sigma: e["network"] / e["gaussian"] for sigma, e in table.items()}
        for name, table in result["validation"]["denoising_mse"].items()
    }
    return {
        "prior": result["name"],
        "data": result["validation"]["data"],
        "steps": {part: facts["steps"] for part, facts in result["history"].items()},
        "round_trip_db": result["validation"]["round_trip_db"],
        f"round_trip_rms_{result['units']}": result["error"],
        "denoising_error_over_gaussian": ratios,
    }


def _kinds(annotation: Any) -> dict[str, Any]:
    """The models of a tagged union, by tag."""
    from pydantic import Tag

    members = [get_args(member) for member in get_args(annotation)]
    return {str(m[1].tag): m[0] for m in members if len(m) == 2 and isinstance(m[1], Tag)}
