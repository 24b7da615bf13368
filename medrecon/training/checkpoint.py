"""Training checkpoints in safetensors: weights, averages, optimiser, generator; written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

NAME = "checkpoint.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    step: int,
) -> None:
    tensors = {f"module.{k}": v.contiguous().clone() for k, v in module.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous().clone() for k, v in average.state_dict().items()}
    tensors["generator"] = generator.get_state()
    for index, state in optimizer.state_dict()["state"].items():
        for name in MOMENTS:
            tensors[f"optimizer.{index}.{name}"] = state[name].contiguous().clone()
    partial = folder / (NAME + ".partial")
    save_file(tensors, partial, {"step": json.dumps(step)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(folder / NAME)


def load_checkpoint(
    folder: Path,
    module: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    """Restore everything in place; the number of steps already done, 0 without a checkpoint.

    Raises:
        ValueError: the checkpoint is of another architecture.
    """
    path = folder / NAME
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        step = int(json.loads(file.metadata()["step"]))
    for prefix, target in (("module.", module), ("average.", average)):
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            target.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{path} holds another architecture; choose another folder or delete it") from error
    generator.set_state(tensors["generator"])
    state_dict = optimizer.state_dict()
    state_dict["state"] = {
        i: {"step": torch.tensor(float(step)), **{n: tensors[f"optimizer.{i}.{n}"] for n in MOMENTS}}
        for i in range(len(list(module.parameters())))
    }
    optimizer.load_state_dict(state_dict)
    return step


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


def steps_done(folder: Path) -> int:
    """Optimiser steps in the checkpoint of a run."""
    with safe_open(folder / NAME, framework="pt") as file:
        return int(json.loads(file.metadata()["step"]))
