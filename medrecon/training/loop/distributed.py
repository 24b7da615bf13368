"""Data-parallel training: N processes, started by torchrun, that average their gradients.

    torchrun --standalone --nproc-per-node 4 -m medrecon train diffusion ct.yaml -o training/ct --device cuda

Every process (rank) draws its own crops and noise, so the batch of a step is N times that of the configuration. The
noise of the gradient falls by sqrt(N): for AdamW, multiply lr by up to sqrt(N) (arXiv 2205.10287) and train fewer
steps, or keep lr and take the better gradients.

The gradients go through one all-reduce of one flattened bucket after the backward pass. DistributedDataParallel would
hide some of that time behind the backward pass, but it sees calls of `forward` only, and a loss here calls other
methods; at the size of our networks (under 100 MB of gradients) an all-reduce takes milliseconds. All ranks start from
rank 0's weights and apply the same update to them, so they stay equal to the bit. Networks with running statistics
(BatchNorm) are not for this: only gradients are shared.

After a failure start the same command again rather than by --max-restarts: torch 2.13's own restart sometimes hands
the new processes the addresses of the dead ones, and they wait for each other in vain (seen with gloo).

Without torchrun all functions here answer for one process alone.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = datetime.timedelta(hours=2)
"""How long ranks wait for each other: rank 0 validates and prepares data alone. A rank that fails ends all at once."""


def rank() -> int:
    """Which of the processes this is; rank 0 writes, logs and validates."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the processes that torchrun started for the time of the block; gives the device of this one.

    cuda becomes cuda:LOCAL_RANK. Alone: `device`, and nothing is done.

    Raises:
        ValueError: several processes on one GPU.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        yield device
        return
    local, count = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if torch.device(device).type == "cuda":
        if torch.device(device).index is not None and count > 1:
            raise ValueError(f"device {device} under torchrun: all processes would share one GPU; say cuda")
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun started process {local}, but there are {torch.cuda.device_count()} GPUs here: "
                "lower --nproc-per-node"
            )
        backend, device = "cpu:gloo,cuda:nccl", f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group(backend, timeout=PATIENCE)
    yield device
    dist.destroy_process_group()  # not after an exception: the others may hang in a collective, torchrun ends them


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # on the CPU: dist.barrier would take a GPU


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Rank 0 runs the block (and writes files), then the others do (and find them)."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def gather(row: Tensor) -> Tensor:
    """(world size, n): the CPU tensor (n,) of every rank."""
    rows = [torch.empty_like(row) for _ in range(world_size())]
    if len(rows) == 1:
        return row[None]
    dist.all_gather(rows, row)
    return torch.stack(rows)


@torch.no_grad()
def share_weights(module: nn.Module) -> None:
    """Rank 0's parameters and buffers on all ranks."""
    if world_size() == 1:
        return
    for tensor in module.state_dict().values():
        whole = tensor.contiguous()  # channels_last weights are not
        dist.broadcast(whole, 0)
        tensor.copy_(whole)


@torch.no_grad()
def average_gradients(module: nn.Module, loss: Tensor, others: Sequence[float]) -> Tensor:
    """Replace every gradient by its mean over the ranks; returns the means of (loss, *others).

    A parameter without a gradient on this rank counts as zero, since the bucket must be the same on all.
    """
    loss = loss.detach().float()
    numbers = torch.stack([loss, *(torch.full_like(loss, x) for x in others)])  # filled on the device: no waiting
    if world_size() == 1:
        return numbers
    gradients = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    bucket = torch.cat([*(g.flatten() for g in gradients), numbers])
    dist.all_reduce(bucket)
    bucket /= world_size()
    *means, numbers = bucket.split([*(g.numel() for g in gradients), len(numbers)])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))
    return numbers


def rank_seed(seed: int, step: int = 0) -> int:
    """A seed of this rank's own: rank 0 at the start has `seed` itself; another step gives other draws."""
    return (seed + 1_000_003 * rank() + 7_368_787 * step) % 2**63
