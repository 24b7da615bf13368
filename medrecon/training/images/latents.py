"""Latents of the training slices, encoded once and kept on disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from medrecon.core import atomic
from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.networks.pixel_space import PixelSpace
from medrecon.models.values import ValueMap
from medrecon.training.images.augment import Augment, numbered_crops
from medrecon.training.images.slices import Slices
from medrecon.training.loop.distributed import rank_zero_first

TrainingAutoencoder = KLAutoencoder | PixelSpace
AS_THEY_ARE = Augment(turns=0.0, plain=1.0)
"""of the latents that the statistics are taken from: mirrored at most"""


@torch.no_grad()
def encode_slices(autoencoder: TrainingAutoencoder, values: ValueMap, x: Tensor, device: str, bf16: bool) -> Tensor:
    """Latents (N, C, h, w), not normalised, float16, of slices (N, H, W), real or complex, in physical values."""
    latents = []
    for part in x.split(8):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            latents.append(autoencoder.posterior(values.forward(part.to(device)))[0].half().cpu())
    return torch.cat(latents)


def training_latents(
    autoencoder: TrainingAutoencoder,
    values: ValueMap,
    slices: Slices,
    views: int,
    augment: Augment,
    seed: int,
    device: str,
    bf16: bool,
) -> dict[str, Tensor]:
    """Latents "train" of `views` varied copies of the slices, drawn with the weights of their subjects, and "slices",
    the number of the slice that each is of."""
    generator = torch.Generator().manual_seed(seed)
    size = slices.data.shape[-1]
    latents, numbers = [], []
    for _ in range(math.ceil(views * len(slices.subjects) / 16)):
        x, chosen = numbered_crops(slices, size, 16, augment, generator)
        latents.append(encode_slices(autoencoder, values, x, device, bf16))
        numbers.append(chosen)
    return {"train": torch.cat(latents), "slices": torch.cat(numbers)}


def fingerprint(autoencoder: TrainingAutoencoder, slices: Slices, settings: str) -> str:
    """Of the weights that encode, the subjects and shape of what is encoded, and how."""
    digest = hashlib.sha256(f"{settings} {tuple(slices.data.shape)} {slices.slope} {slices.subjects}".encode())
    for parameter in autoencoder.parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def stored(path: Path, make: Callable[[], dict[str, Tensor]], made_of: str) -> dict[str, Tensor]:
    """The tensors in `path`, made and written whole if it is not there yet; memory-mapped.

    Raises:
        ValueError: they were made of something else: what was trained on them does not fit either.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    with rank_zero_first():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {k: v.contiguous() for k, v in make().items()}
            with atomic.claimed(path, wait=True):  # experts may be trained at the same time
                if not path.exists():
                    with atomic.file(path) as partial:
                        partial.write_bytes(save(tensors, {"made_of": made_of}))
    with safe_open(path, framework="pt") as file:
        before = (file.metadata() or {}).get("made_of", made_of)  # files of version 0.1 do not say
    if before != made_of:
        raise ValueError(
            f"{path} was encoded by another state of the autoencoder, or from other data or settings (views, augment): "
            "remove it, and the checkpoints of experts that are not to go on from what they learned on it"
        )
    return load_file(path)


def statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel, (C, 1, 1), float32."""
    count = latents.shape[0] * latents.shape[2] * latents.shape[3]
    mean = sum(part.double().sum((0, 2, 3)) for part in latents.split(256)) / count
    assert isinstance(mean, Tensor)
    square = sum((part.double() - mean[:, None, None]).square().sum((0, 2, 3)) for part in latents.split(256)) / count
    assert isinstance(square, Tensor)
    return mean.float()[:, None, None], square.sqrt().float()[:, None, None]
