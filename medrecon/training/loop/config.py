"""How long and how fast to train one network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Optimizer = Literal["adamw", "muon"]


class LoopConfig(BaseModel):
    """How long and how fast to train."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    steps: int = Field(20000, gt=0)
    """optimiser steps; a resumed run may change it, the learning rate follows step/steps"""
    minutes: float | None = Field(None, gt=0)
    """stop after this time of training and validation, over all resumptions; the learning rate then follows the
    larger of step/steps and time/minutes, so that a run always ends annealed"""
    optimizer: Optimizer = "adamw"
    """AdamW, or Muon for the matrices and AdamW for the rest"""
    lr: float = Field(1e-3, gt=0)
    """peak learning rate; the same serves both optimisers"""
    final_lr: float = Field(0.005, gt=0, le=1)
    """last learning rate as a share of the peak; the last annealing is worth some 3 dB"""
    warmup: int = Field(200, ge=0)
    """steps of linear warm-up"""
    weight_decay: float = Field(1e-4, ge=0)
    """decoupled weight decay"""
    ema: float = Field(0.999, ge=0, lt=1)
    """decay of the exponential moving average of the weights"""
    validate_every: int = Field(1000, gt=0)
    """steps between validations"""
    log_every: int = Field(50, gt=0)
    """steps between lines of log.jsonl"""
    save_seconds: float = Field(45.0, gt=0)
    """seconds between checkpoints: what a kill can cost"""
    seed: int = 0
    """seed of everything random in the run"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    bf16: bool = True
    """bfloat16 autocast of the networks (weights and losses stay float32)"""
