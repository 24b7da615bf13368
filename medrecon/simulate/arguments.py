"""What a simulation is called with, checked before anything is computed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch

from medrecon.core.volume import Volume


def check_call(volume: Volume, generator: torch.Generator, whole: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Check the arguments that every simulation has, and others by name; None is left to who has a default for it.

    Args:
        whole: those that are whole numbers.
        numbers: those that are finite ones.

    Raises:
        TypeError: not of its kind; names it.
        ValueError: a volume without voxels or with NaN or infinite values, or a number that is not finite.
    """
    if not isinstance(volume, Volume):
        raise TypeError(f"volume: expected a Volume, got {type(volume).__name__}")
    if not volume.data.numel():
        raise ValueError(f"volume: has no voxels, {tuple(volume.data.shape)}")
    if not bool(volume.data.isfinite().all()):
        raise ValueError("volume: has NaN or infinite values")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {generator!r}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator: expected one on the CPU, got one on {generator.device}")
    for name, value in whole.items():
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool)):
            raise TypeError(f"{name}: expected a whole number, got {value!r}")
    for name, value in numbers.items():
        if value is None:
            continue
        if not isinstance(value, Real):
            raise TypeError(f"{name}: expected a number, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value!r}")


def check_snr(snr_db: float) -> None:
    """Raises ValueError where a signal-to-noise ratio is beyond any use, and 10 to its power might not exist."""
    if not -300 <= snr_db <= 300:
        raise ValueError(f"snr_db: expected -300 to 300 dB, got {snr_db!r}")
