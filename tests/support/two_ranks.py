"""Run by torchrun with two processes, twice: the scenarios of test_training_loop.py; writes every rank's weights.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/support/two_ranks.py FOLDER
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from medrecon.training.loop import steps as loop
from medrecon.training.loop.config import LoopConfig
from medrecon.training.loop.distributed import process_group, rank, rank_zero_first
from medrecon.training.loop.signals import Stopped
from medrecon.training.loop.steps import fit

STEPS = 8


class Net(torch.nn.Module):
    """Losses call `predict`, not forward, as those of the priors do; `spare` never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3, padding=1).to(memory_format=torch.channels_last)
        self.spare = torch.nn.Parameter(torch.ones(2), requires_grad=False)

    def predict(self, x):
        return self.conv(x).mean(1, keepdim=True)


def net(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def regression(module, generator):
    x = torch.randn(4, 2, 6, 6, generator=generator)
    return (module.predict(x) - x.sum(1, keepdim=True)).square().mean()


def settings(**changed) -> LoopConfig:
    defaults = {"steps": STEPS, "warmup": 1, "lr": 0.05, "validate_every": 4, "log_every": 2, "save_seconds": 1e4}
    return LoopConfig(**{**defaults, **changed})


def train(folder: Path, loss=regression, **changed) -> torch.nn.Module:
    def validate(_):
        assert rank() == 0
        time.sleep(0.2)  # the other waits
        return {"score": 1.0}

    def report(*_):
        assert rank() == 0

    return fit(net(rank()), loss, validate, settings(**changed), folder, report)  # ranks start unlike each other


def signalled(module, generator):
    """Asks rank 1, and it alone, to stop in step 3."""
    signalled.calls += 1
    if signalled.calls == 3 and rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return regression(module, generator)


def failing(module, generator):
    """Rank 1 dies in step 6, two steps after a checkpoint; the second time there are not as many."""
    failing.calls += 1
    if failing.calls == 6 and rank() == 1:
        os._exit(9)
    return regression(module, generator)


def stopped(folder: Path) -> torch.nn.Module:
    try:
        train(folder / "stopped", signalled)
    except Stopped as stop:
        (folder / f"stopped-{rank()}.txt").write_text(str(stop))
    return train(folder / "stopped")


def apart(folder: Path) -> torch.nn.Module:
    """The gradients are not averaged."""
    averaging = loop.average_gradients
    try:
        loop.average_gradients = lambda module, value, others: torch.tensor([float(value), *others])
        return train(folder / "apart")
    finally:
        loop.average_gradients = averaging


def make_once(path: Path) -> None:
    with rank_zero_first():
        if not path.exists():
            time.sleep(0.2)
            with path.open("a") as file:
                file.write("once")


def main(folder: Path) -> None:
    signalled.calls = failing.calls = 0
    modules = {
        "killed": train(folder / "killed", failing),
        "whole": train(folder / "whole"),
        "stopped": stopped(folder),
        "timed": train(folder / "timed", minutes=0.3 / 60, steps=10**6, validate_every=10**6),
        "apart": apart(folder),
    }
    make_once(folder / "made.txt")
    for name, module in modules.items():
        weights = {k: v.contiguous() for k, v in module.state_dict().items()}
        save_file(weights, folder / f"{name}-{rank()}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group("cpu"):
        main(Path(sys.argv[1]))
