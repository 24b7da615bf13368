"""The training loop: AdamW, cosine decay, EMA, and checkpoints that survive a kill."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from medrecon.training.checkpoint import load_checkpoint, save_checkpoint

Loss = Callable[[nn.Module, torch.Generator], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
Report = Callable[[int, int, float, dict[str, float]], None]  # step, steps, loss, validation


class LoopConfig(BaseModel):
    """How long and how fast to train."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(20000, gt=0)
    """optimiser steps; a resumed run may change it, the learning rate follows step/steps"""
    lr: float = Field(1e-3, gt=0)
    """peak learning rate of AdamW"""
    final_lr: float = Field(0.005, gt=0, le=1)
    """last learning rate as a share of the peak; the last annealing is worth some 3 dB"""
    warmup: int = Field(200, ge=0)
    """steps of linear warm-up"""
    weight_decay: float = Field(1e-4, ge=0)
    """AdamW weight decay"""
    ema: float = Field(0.999, ge=0, lt=1)
    """decay of the exponential moving average of the weights"""
    validate_every: int = Field(1000, gt=0)
    """steps between validations"""
    save_seconds: float = Field(45.0, gt=0)
    """seconds between checkpoints: what a kill can cost"""
    seed: int = 0
    """seed of everything random in the run"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    bf16: bool = True
    """bfloat16 autocast of the networks (weights and losses stay float32)"""


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then a cosine from lr to lr * final_lr."""
    ramp = min(1.0, (step + 1) / max(1, config.warmup))
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / config.steps))
    return config.lr * ramp * (config.final_lr + (1 - config.final_lr) * cosine)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def fit(
    module: nn.Module, loss: Loss, validate: Validate, config: LoopConfig, folder: Path, report: Report
) -> nn.Module:
    """Minimise `loss`; resumes from `folder` if it holds a checkpoint; returns the averaged module.

    Raises:
        FloatingPointError: the loss is not finite; the last checkpoint is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(config.seed)
    average = copy.deepcopy(module).requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    start = load_checkpoint(folder, module, average, optimizer, generator)
    saved, running = time.monotonic(), math.nan
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        value = loss(module, generator)
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"training loss is {value.item()} at step {step}: lower lr; {folder} keeps the last checkpoint"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        update_average(average, module, min(config.ema, (1 + step) / (10 + step)))
        running = value.item() if math.isnan(running) else 0.98 * running + 0.02 * value.item()
        done, last = step + 1, step + 1 == config.steps
        if last or time.monotonic() - saved > config.save_seconds:
            save_checkpoint(folder, module, average, optimizer, generator, done)
            saved = time.monotonic()
        scores: dict[str, float] = {}
        if last or done % config.validate_every == 0:
            scores = validate(average)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": done, "loss": running, **scores}) + "\n")
        report(done, config.steps, running, scores)
    return average
