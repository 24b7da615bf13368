"""Training checkpoints in safetensors: weights, averages, optimiser, generators; written atomically."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from medrecon.core import atomic
from medrecon.training.loop.distributed import gather, rank, world_size
from medrecon.training.loop.gpu import hardware

NAME = "checkpoint.safetensors"


@dataclass
class State:
    """All that a run needs to go on as if nothing had happened."""

    module: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    """steps done"""
    seconds: float = 0.0
    """time trained"""
    loss: float = math.nan
    """running mean"""


def _tensors(state: State, generators: Tensor) -> dict[str, Tensor]:
    tensors = {f"module.{k}": v for k, v in state.module.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items() if name != "step"}
    tensors["generator"] = generators
    return {k: v.contiguous().clone() for k, v in tensors.items()}


def save_checkpoint(folder: Path, state: State) -> None:
    """Replace the checkpoint in `folder` by rank 0's state with the generators of all ranks; all ranks must call it.

    Raises:
        OSError: it could not be written, say because the disk is full; the one before is kept.
    """
    generators = gather(state.generator.get_state())
    if rank() > 0:
        return
    facts = {
        "step": state.step,
        "seconds": state.seconds,
        "loss": state.loss,
        "world_size": len(generators),
        "optimizer": type(state.optimizer).__name__,
        "hardware": hardware(next(state.module.parameters()).device),
    }
    content = save(_tensors(state, generators), {k: json.dumps(v) for k, v in facts.items()})
    try:
        with atomic.file(folder / NAME, overwrite=True) as partial:
            partial.write_bytes(content)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        text = (
            f"{folder / NAME}: {reason}; step {state.step} ({len(content) / 1e6:.0f} MB) is not saved, the "
            "checkpoint before it is kept: make space and run the same command to go on from there"
        )
        raise OSError(error.errno, text) from error


def load_checkpoint(folder: Path, state: State) -> int:
    """Restore `state` in place, if there is a checkpoint; the number of ranks that wrote it, 0 without one.

    The generator is restored only where as many ranks train as wrote the checkpoint.

    Raises:
        ValueError: the checkpoint is of another architecture or optimiser, or damaged.
    """
    path = folder / NAME
    if not path.exists():
        return 0
    tensors, facts = _read(path)
    if facts["optimizer"] != type(state.optimizer).__name__:
        raise ValueError(
            f"{path} was trained by {facts['optimizer']}: set `optimizer` to that, or choose another "
            "folder and `start_from` the prior of this one"
        )
    for prefix, target in (("module.", state.module), ("average.", state.average)):
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            target.load_state_dict(part)
        except RuntimeError as error:
            raise ValueError(f"{path} holds another architecture; choose another folder or delete it") from error
    state.step, state.seconds, state.loss = facts["step"], facts["seconds"], facts["loss"]
    state_dict = state.optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}  # a frozen parameter has none
    for key in (k for k in tensors if k.startswith("optimizer.")):
        _, index, name = key.split(".")
        moments.setdefault(int(index), {"step": torch.tensor(float(state.step))})[name] = tensors[key]
    state_dict["state"] = moments
    state.optimizer.load_state_dict(state_dict)
    if facts["world_size"] == world_size():
        states = tensors["generator"].reshape(world_size(), -1)
        state.generator.set_state(states[rank()].clone())  # torch 2.13 ignores the offset of a view, and crashes
    return int(facts["world_size"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            facts = _facts(file.metadata())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to train from the start") from error
    return tensors, facts


def _facts(header: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint says of its run, with what one says by silence that is older than the key."""
    silent = {"seconds": 0.0, "loss": math.nan, "world_size": 1, "optimizer": "AdamW", "hardware": "not recorded"}
    return silent | {key: json.loads(value) for key, value in header.items()}


def training_facts(folder: Path) -> dict[str, Any]:
    """How the run in `folder` was trained, for a model card: steps, minutes, world_size, optimiser, the last hardware.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    if not (folder / NAME).exists():
        raise FileNotFoundError(f"{folder / NAME} not found: nothing was trained there")
    with safe_open(folder / NAME, framework="pt") as file:
        facts = _facts(file.metadata())
    return {
        "steps": facts["step"],
        "minutes": round(facts["seconds"] / 60, 1),
        **{key: facts[key] for key in ("world_size", "optimizer", "hardware")},
    }


def averaged(folder: Path, command: str) -> dict[str, torch.Tensor]:
    """The averaged weights of a run.

    Raises:
        FileNotFoundError: there is no checkpoint; `command` is what makes one.
    """
    path = folder / NAME
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: run `{command}` on this folder first")
    with safe_open(path, framework="pt") as file:
        names = [k for k in file.keys() if k.startswith("average.")]  # noqa: SIM118
        return {k.removeprefix("average."): file.get_tensor(k) for k in names}
