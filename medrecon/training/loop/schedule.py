"""How far a run is, in steps or in time, and the learning rate that follows from it."""

from __future__ import annotations

import math

from medrecon.training.loop.config import LoopConfig


def progress(config: LoopConfig, step: int, seconds: float) -> float:
    """Return the larger of step/steps and time/minutes; 1 ends the run."""
    share = step / config.steps
    return share if config.minutes is None else max(share, seconds / (60 * config.minutes))


def learning_rate(config: LoopConfig, step: int, seconds: float = 0.0) -> float:
    """Warm up linearly, then follow a cosine in `progress` from lr to lr * final_lr: annealed however the run ends."""
    ramp = min(1.0, (step + 1) / max(1, config.warmup))
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress(config, step, seconds)))
    return config.lr * ramp * (config.final_lr + (1 - config.final_lr) * cosine)
