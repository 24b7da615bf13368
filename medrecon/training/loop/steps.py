"""The training loop: AdamW or Muon, cosine decay, EMA, a budget of steps or minutes; survives kills, many processes."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from medrecon.core.lock import held
from medrecon.core.stage import clear
from medrecon.training.loop.checkpoint import State, load_checkpoint, save_checkpoint
from medrecon.training.loop.config import LoopConfig
from medrecon.training.loop.distributed import (
    average_gradients,
    barrier,
    gather,
    rank,
    rank_seed,
    share_weights,
    world_size,
)
from medrecon.training.loop.log import Log
from medrecon.training.loop.muon import Muon
from medrecon.training.loop.schedule import learning_rate, progress
from medrecon.training.loop.signals import Stopped, stop_signals

LOCK = "training.lock"
Loss = Callable[[nn.Module, torch.Generator], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
Report = Callable[[int, int, float, dict[str, float]], None]  # step, expected steps, loss, validation


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def fit(
    module: nn.Module, loss: Loss, validate: Validate, config: LoopConfig, folder: Path, report: Report
) -> nn.Module:
    """Minimise `loss`; resumes from `folder` if it holds a checkpoint; returns the averaged module.

    On several processes (medrecon.training.loop.distributed) all must call it and see the same `folder`; rank 0 alone
    writes, validates and reports.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the last checkpoint is kept.
        Stopped: SIGTERM or SIGHUP; the run is saved.
        Busy: another run trains in `folder`.
        KeyboardInterrupt: SIGINT; the run is saved.
        OSError: a checkpoint could not be written; the last one is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), stop_signals(patient=world_size() > 1) as asked:
        run = _start(module, loss, validate, config, folder, report)
        run.record()  # what a kill cut off
        while not run.over():
            stopped = run.advance(asked)
            if stopped or run.must_save():
                run.save()
            if stopped:
                message = f"stopped after step {run.state.step}, saved in {folder}: the same command resumes"
                raise (KeyboardInterrupt if signal.SIGINT in asked else Stopped)(message)
            run.tell(run.record())
    barrier()  # rank 0 has written
    return run.state.average


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder: each would replace the other's checkpoints. Rank 0 holds the lock."""
    if rank() > 0:
        yield
        return
    clear(folder)
    with held(folder / LOCK, str(folder)):
        yield


def _start(module: nn.Module, loss: Loss, validate: Validate, config: LoopConfig, folder: Path, report: Report) -> _Run:
    """The run as `folder` has it, or a new one."""
    share_weights(module)
    kind = Muon if config.optimizer == "muon" else torch.optim.AdamW
    optimizer = kind(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(rank_seed(config.seed))
    state = State(module, copy.deepcopy(module).requires_grad_(False), optimizer, generator)
    ranks = load_checkpoint(folder, state)
    if len(gather(torch.tensor([state.step])).unique()) > 1:
        raise RuntimeError(f"{folder}: the processes find different checkpoints; it must be one folder for all")
    log = Log(folder / "log.jsonl", state.step) if rank() == 0 else None
    if ranks not in (0, world_size()):
        generator.manual_seed(rank_seed(config.seed, state.step))
        if log:
            log.write(state.step, note=f"{ranks} processes before, {world_size()} now: random numbers start anew")
    return _Run(loss, validate, report, config, folder, state, log)


class _Run:
    """What `fit` was given, and how far it is."""

    def __init__(
        self,
        loss: Loss,
        validate: Validate,
        report: Report,
        config: LoopConfig,
        folder: Path,
        state: State,
        log: Log | None,
    ) -> None:
        self.loss, self.validate, self.report = loss, validate, report
        self.config, self.folder, self.state, self.log = config, folder, state, log
        self.began = time.monotonic() - state.seconds  # as if trained in one go
        self.saved = state.seconds

    def over(self) -> bool:
        return progress(self.config, self.state.step, self.state.seconds) >= 1

    def must_validate(self) -> bool:
        return self.over() or self.state.step % self.config.validate_every == 0

    def must_save(self) -> bool:
        """Also before a validation: it may take long, and no training is lost then."""
        return self.must_validate() or self.state.seconds - self.saved > self.config.save_seconds

    def save(self) -> None:
        save_checkpoint(self.folder, self.state)
        self.saved = self.state.seconds

    def advance(self, asked: Sequence[signal.Signals]) -> bool:
        """One optimiser step; whether any rank was asked to stop. Ranks share their times, too: all decide alike."""
        s, config = self.state, self.config
        for group in s.optimizer.param_groups:
            group["lr"] = learning_rate(config, s.step, s.seconds)
        value = self.loss(s.module, s.generator)
        s.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        shared = average_gradients(s.module, value, (time.monotonic() - self.began, float(len(asked))))
        norm = nn.utils.clip_grad_norm_(s.module.parameters(), 1.0)
        s.optimizer.step()
        update_average(s.average, s.module, min(config.ema, (1 + s.step) / (10 + s.step)))
        loss, s.seconds, stopped, size = torch.cat([shared, norm.view(1)]).tolist()  # the only wait for the device
        if not math.isfinite(loss + size):
            raise FloatingPointError(
                f"training loss is {loss}, its gradient {size} at step {s.step}: lower lr; "
                f"{self.folder} keeps the last checkpoint"
            )
        s.loss = loss if math.isnan(s.loss) else 0.98 * s.loss + 0.02 * loss
        s.step += 1
        return stopped > 0

    def record(self) -> dict[str, float]:
        """Validate and log the step, if it is due and not in the log yet; rank 0 only."""
        s, config = self.state, self.config
        if self.log is None or s.step <= self.log.step:
            return {}
        due = self.must_validate()
        scores = self.validate(s.average) if due else {}
        if due or s.step % config.log_every == 0:
            lr = learning_rate(config, s.step - 1, s.seconds)
            self.log.write(s.step, loss=s.loss, lr=lr, seconds=s.seconds, **scores)
        return scores

    def tell(self, scores: dict[str, float]) -> None:
        """Report; under a time budget the number of steps is what the pace so far promises."""
        s = self.state
        if rank() == 0:
            share = min(1.0, progress(self.config, s.step, s.seconds))
            self.report(s.step, math.ceil(s.step / share - 1e-6), s.loss, scores)
