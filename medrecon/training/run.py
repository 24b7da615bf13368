"""`medrecon train autoencoder|diffusion`: from a config to a prior with its model card."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrecon import __version__
from medrecon.manifest import load_manifest
from medrecon.models.kl_autoencoder import KLAutoencoder
from medrecon.models.store import describe, read_part, save_prior, value_map
from medrecon.models.wiener_unet import WienerUNet
from medrecon.training.autoencoder import AutoencoderTask
from medrecon.training.checkpoint import NAME
from medrecon.training.config import TrainConfig
from medrecon.training.diffusion import DiffusionTask, encode_slices, training_latents
from medrecon.training.loop import Report, fit
from medrecon.training.slices import Slices, crops
from medrecon.training.sources import load_slices


def load_data(config: TrainConfig) -> tuple[Slices, Slices]:
    """Training and validation slices; refuses a subject that is in both."""
    manifest = load_manifest(config.manifest)
    train, held_out = (load_slices(manifest, split, config.size, config.root) for split in ("train", "val"))
    shared = set(train.subjects) & set(held_out.subjects)
    if shared:
        raise ValueError(f"{config.manifest}: subjects in both train and val: {sorted(shared)[:5]}; split by subject")
    return train, held_out


def _seed(config: TrainConfig) -> None:
    # MONAI's constructors draw their initial weights from torch's global generator.
    torch.manual_seed(config.autoencoder_loop.seed)


def _autoencoder(config: TrainConfig) -> KLAutoencoder:
    a = config.autoencoder
    net = KLAutoencoder(a.channels, a.latent_channels, a.res_blocks, a.patch)
    return net.to(config.autoencoder_loop.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_autoencoder(config: TrainConfig, folder: Path, report: Report) -> dict[str, float]:
    """Train, or resume, the autoencoder in folder/autoencoder; its validation scores."""
    with torch.random.fork_rng():
        _seed(config)
        module = _autoencoder(config)
    train, held_out = load_data(config)
    loop, values = config.autoencoder_loop, value_map(config.values)
    if config.start_from is not None:
        module.load_state_dict(read_part(config.start_from, "autoencoder"))
    else:
        some = crops(train, config.autoencoder.crop, 512, torch.Generator().manual_seed(loop.seed))
        module.fit(values.forward(some.to(loop.device)))
    task = AutoencoderTask(config.autoencoder, values, config.windows, train, held_out, loop.device, loop.bf16)
    average = fit(module, task.loss, task.validate, loop, folder / "autoencoder", report)
    return task.validate(average)


def load_autoencoder(config: TrainConfig, folder: Path) -> KLAutoencoder:
    """The averaged weights of folder/autoencoder.

    Raises:
        FileNotFoundError: train the autoencoder first.
    """
    from safetensors.torch import load_file

    path = folder / "autoencoder" / NAME
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: run `medrecon train autoencoder` on this folder first")
    module = _autoencoder(config)
    tensors = {k.removeprefix("average."): v for k, v in load_file(path).items() if k.startswith("average.")}
    module.load_state_dict(tensors)
    return module.eval().requires_grad_(False)


def prepare_latents(config: TrainConfig, autoencoder: KLAutoencoder, train: Slices, held_out: Slices,
                    folder: Path) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Normalised latents of both splits, cached in folder/latents.safetensors; sets the autoencoder's normalisation."""
    from safetensors.torch import load_file, save_file

    path, loop = folder / "latents.safetensors", config.diffusion_loop
    if not path.exists():
        g = torch.Generator().manual_seed(loop.seed)
        values = value_map(config.values)
        latents = training_latents(autoencoder, values, train, config.diffusion, g, loop.device, loop.bf16)
        held = encode_slices(autoencoder, values, held_out.values(slice(None)), loop.device, loop.bf16)
        partial = path.with_suffix(".partial")
        halves = {"train": latents.half().contiguous().cpu(), "val": held.half().contiguous().cpu()}
        save_file(halves, partial)
        partial.replace(path)
    stored = {k: v.float().to(loop.device) for k, v in load_file(path).items()}
    mean = stored["train"].mean((0, 2, 3))[:, None, None]
    std = (stored["train"] - mean).square().mean((0, 2, 3)).sqrt()[:, None, None]
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std)
    return (stored["train"] - mean) / std, (stored["val"] - mean) / std


def train_diffusion(config: TrainConfig, folder: Path, report: Report) -> dict[str, Any]:
    """Train, or resume, the denoiser in folder/diffusion, write folder/prior.safetensors and its card."""
    train, held_out = load_data(config)
    autoencoder = load_autoencoder(config, folder)
    latents, held = prepare_latents(config, autoencoder, train, held_out, folder)
    loop = config.diffusion_loop
    with torch.random.fork_rng():
        _seed(config)
        module = WienerUNet(config.diffusion.model_dump(), config.autoencoder.latent_channels, latents.shape[-1])
    module = module.to(loop.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.start_from is not None:
        module.load_state_dict(read_part(config.start_from, "denoiser"))
    module.wiener.fit(latents)
    task = DiffusionTask(config.diffusion, latents, held[:: max(1, len(held) // 24)], loop.bf16)
    average = fit(module, task.loss, task.validate, loop, folder / "diffusion", report)
    assert isinstance(average, WienerUNet)
    card = model_card(config, autoencoder, held_out, task.errors(average))
    save_prior(folder / "prior.safetensors", autoencoder, average, card)
    return card


def model_card(config: TrainConfig, autoencoder: KLAutoencoder, held_out: Slices,
               errors: dict[float, tuple[float, float]]) -> dict[str, Any]:  # fmt: skip
    """What a user must know: data, licences, steps, figures, limits."""
    values, manifest = value_map(config.values), load_manifest(config.manifest)
    a = AutoencoderTask(config.autoencoder, values, config.windows, held_out, held_out,
                        config.autoencoder_loop.device, False)  # fmt: skip
    scores = a.validate(autoencoder)
    first = next(iter(config.windows.values()))
    squares = [
        (a.round_trip(autoencoder, x) - x.clamp(values.low, values.high)).square().mean().item()
        for x in held_out.values(slice(None)).split(8)
    ]
    return {
        "name": f"medrecon {config.modality} latent diffusion prior",
        "modality": config.modality,
        "units": manifest.units,
        "values": describe(values),
        "autoencoder": config.autoencoder.model_dump(),
        "diffusion": config.diffusion.model_dump(),
        "error": (sum(squares) / len(squares)) ** 0.5,
        "started_from": str(config.start_from) if config.start_from else "random weights",
        "steps": {"autoencoder": config.autoencoder_loop.steps, "diffusion": config.diffusion_loop.steps},
        "windows": {k: w.model_dump() for k, w in config.windows.items()},
        "validation": {
            "data": f"{manifest.name}, val: {len(set(held_out.subjects))} subjects, {len(held_out.subjects)} slices",
            "round_trip_db": scores,
            "range": [first.low, first.high],
            "denoising_mse": {f"{s:g}": {"network": o, "gaussian": g} for s, (o, g) in errors.items()},
        },
        "data": manifest.model_dump(mode="json"),
        "software": {"medrecon": __version__, "torch": str(torch.__version__)},
        "date": datetime.date.today().isoformat(),
        "use": "RESEARCH USE ONLY - NOT FOR CLINICAL USE. Trained on few subjects; check the residual and the error.",
    }
