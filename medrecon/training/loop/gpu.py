"""What keeps a GPU from waiting: noise drawn on it, latents that lie on it; and its name."""

from __future__ import annotations

import platform

import torch
from torch import Tensor


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """White float32 noise on the device of x.

    On a GPU it is drawn there, by a generator seeded from the CPU's: whoever restores the CPU's state draws it again.
    """
    if x.device.type == "cpu":
        return torch.randn(x.shape, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.randn(x.shape, generator=torch.Generator(x.device).manual_seed(seed), device=x.device)


def resident(latents: Tensor, device: torch.device) -> Tensor:
    """The same on the GPU if it takes less than half of what is free there; else, and on a CPU, as they are."""
    if device.type != "cuda":
        return latents
    free, _ = torch.cuda.mem_get_info(device)
    return latents.to(device) if latents.nbytes < free // 2 else latents


def hardware(device: torch.device) -> str:
    """What a run trains on, for its model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"
