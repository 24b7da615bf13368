"""Where tensors are computed, checked before anything is."""

from __future__ import annotations

import re

import torch


def check_device(name: str) -> None:
    """Complain of a device that is not there.

    Raises:
        ValueError: none of cpu, cuda, cuda:N, or no such GPU here.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if not match:
        raise ValueError(f"device: {name!r} is none of cpu, cuda, cuda:N")
    if name == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"device: {name}, but torch finds no GPU here (`medrecon doctor`); say cpu")
    if int(match[1] or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {name}, but the last GPU here is cuda:{torch.cuda.device_count() - 1}")
