"""`medrecon train autoencoder|diffusion|prior`: from a config to a prior with its model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medrecon.manifest import load_manifest
from medrecon.models.kl_autoencoder import KLAutoencoder
from medrecon.models.store import read_part, save_prior, value_map
from medrecon.models.wiener_unet import WienerUNet
from medrecon.training.augment import crops
from medrecon.training.autoencoder import AutoencoderTask
from medrecon.training.card import model_card
from medrecon.training.checkpoint import averaged, steps_done
from medrecon.training.config import TrainConfig
from medrecon.training.diffusion import DiffusionTask, ExpertTraining
from medrecon.training.latents import AS_THEY_ARE, encode_slices, statistics, stored, training_latents
from medrecon.training.loop import Report, fit
from medrecon.training.slices import Slices
from medrecon.training.sources import load_slices


def load_data(config: TrainConfig) -> tuple[Slices, Slices]:
    """Training and validation slices; refuses a subject that is in both."""
    manifest = load_manifest(config.manifest)
    train, held_out = (load_slices(manifest, split, config.size, config.root) for split in ("train", "val"))
    shared = set(train.subjects) & set(held_out.subjects)
    if shared:
        raise ValueError(f"{config.manifest}: subjects in both train and val: {sorted(shared)[:5]}; split by subject")
    if config.phases is not None:
        train, held_out = (replace(slices, phases=config.phases) for slices in (train, held_out))
    return train, held_out


def _seed(config: TrainConfig) -> None:
    # MONAI's constructors draw their initial weights from torch's global generator.
    torch.manual_seed(config.autoencoder_loop.seed)


def _autoencoder(config: TrainConfig) -> KLAutoencoder:
    a = config.autoencoder
    net = KLAutoencoder(a.channels, a.latent_channels, a.res_blocks, a.patch, config.phases is not None)
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
        a, g = config.autoencoder, torch.Generator().manual_seed(loop.seed)
        some = crops(train, a.crop, 512, a.augment, g)
        module.fit(values.forward(some.to(loop.device)))
    task = AutoencoderTask(config.autoencoder, values, config.windows, train, held_out, loop.device, loop.bf16)
    average = fit(module, task.loss, task.validate, loop, folder / "autoencoder", report)
    return task.validate(average)


def load_autoencoder(config: TrainConfig, folder: Path) -> KLAutoencoder:
    """The averaged weights of folder/autoencoder.

    Raises:
        FileNotFoundError: train the autoencoder first.
    """
    module = _autoencoder(config)
    module.load_state_dict(averaged(folder / "autoencoder", "medrecon train autoencoder"))
    return module.eval().requires_grad_(False)


def load_latents(config: TrainConfig, autoencoder: KLAutoencoder, train: Slices, held_out: Slices,
                 folder: Path) -> dict[str, Tensor]:  # fmt: skip
    """Latents "train" and "val" of the slices as they are, kept in folder/latents.safetensors."""
    values, loop = value_map(config.values), config.autoencoder_loop
    how = loop.device, loop.bf16

    def make() -> dict[str, Tensor]:
        return {
            "train": training_latents(autoencoder, values, train, 1, AS_THEY_ARE, loop.seed, *how),
            "val": encode_slices(autoencoder, values, held_out.images(slice(None)), *how),
        }

    return stored(folder / "latents.safetensors", make)


def load_denoiser(config: TrainConfig, autoencoder: KLAutoencoder, latents: Tensor) -> WienerUNet:
    """Random experts around the Wiener filter of the latents; sets the autoencoder's normalisation too."""
    device = config.autoencoder_loop.device
    mean, std = statistics(latents)
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std)
    with torch.random.fork_rng():
        _seed(config)
        denoiser = config.diffusion.denoiser(config.autoencoder.latent_channels, latents.shape[-1])
    denoiser.wiener.fit((latents.float() - mean) / std)
    return denoiser.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def diffusion_task(config: TrainConfig, name: str, denoiser: WienerUNet, autoencoder: KLAutoencoder,
                   latents: Tensor, held_out: Tensor) -> DiffusionTask:  # fmt: skip
    few = held_out[:: max(1, len(held_out) // 24)]
    return DiffusionTask(denoiser, name, config.diffusion.experts[name], latents, few,
                         autoencoder.latent_mean, autoencoder.latent_std)  # fmt: skip


def train_diffusion(config: TrainConfig, folder: Path, report: Report, expert: str | None = None) -> dict[str, Any]:
    """Train, or resume, the experts in folder/diffusion/NAME, one after the other or only the one named.

    The Wiener filter of every expert is the same, so that they can be trained at the same time.

    Raises:
        ValueError: no expert of that name.
    """
    experts = config.diffusion.experts
    if expert is not None and expert not in experts:
        raise ValueError(f"no expert {expert!r} in the configuration: it has {', '.join(experts)}")
    train, held_out = load_data(config)
    autoencoder = load_autoencoder(config, folder)
    kept = load_latents(config, autoencoder, train, held_out, folder)
    denoiser, values = load_denoiser(config, autoencoder, kept["train"]), value_map(config.values)
    scores = {}
    for name in [expert] if expert else experts:
        settings, home = experts[name], folder / "diffusion" / name

        def make(settings: ExpertTraining = settings) -> dict[str, Tensor]:
            loop = settings.loop
            return {"train": training_latents(autoencoder, values, train, settings.views, settings.augment, loop.seed,
                                              loop.device, loop.bf16)}  # fmt: skip

        latents = stored(home / "latents.safetensors", make)["train"]
        task = diffusion_task(config, name, denoiser, autoencoder, latents, kept["val"])
        module = denoiser.experts[name]
        if config.start_from is not None:
            start_expert(module, config.start_from, name)
        scores[name] = task.validate(fit(module, task.loss, task.validate, settings.loop, home, report))
    return scores


def start_expert(module: nn.Module, path: Path, name: str) -> None:
    """Weights of the expert of that name in a prior, if it has one."""
    state = read_part(path, f"denoiser.experts.{name}")
    if state:
        module.load_state_dict(state)


def assemble(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Write folder/prior.safetensors and its card from the checkpoints as they are; the card.

    Raises:
        FileNotFoundError: the autoencoder or an expert was not trained yet.
    """
    train, held_out = load_data(config)
    autoencoder = load_autoencoder(config, folder)
    latents = load_latents(config, autoencoder, train, held_out, folder)
    denoiser = load_denoiser(config, autoencoder, latents["train"])
    errors, history = {}, {"autoencoder": steps_done(folder / "autoencoder")}
    for name, module in denoiser.experts.items():
        home = folder / "diffusion" / name
        module.load_state_dict(averaged(home, f"medrecon train diffusion --expert {name}"))
        task = diffusion_task(config, name, denoiser, autoencoder, latents["val"], latents["val"])
        errors[name], history[name] = task.errors(module), steps_done(home)
    card = model_card(config, autoencoder, held_out, errors, history)
    save_prior(folder / "prior.safetensors", autoencoder, denoiser, card)
    return card
