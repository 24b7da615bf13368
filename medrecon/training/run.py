"""`medrecon train autoencoder|diffusion|prior`: from a config to a prior with its model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medrecon.data.manifest import load_manifest
from medrecon.models.networks.kl_autoencoder import KLAutoencoder
from medrecon.models.networks.pixel_space import PixelConfig
from medrecon.models.networks.wiener_unet import WienerUNet
from medrecon.models.store import read_part, save_prior, value_map
from medrecon.training.autoencoder import AutoencoderTask
from medrecon.training.card import Errors, model_card
from medrecon.training.checks import check_config, check_labels, check_manifest
from medrecon.training.config import TrainConfig
from medrecon.training.diffusion import DiffusionTask, ExpertTraining
from medrecon.training.images.augment import crops
from medrecon.training.images.latents import (
    AS_THEY_ARE,
    TrainingAutoencoder,
    encode_slices,
    fingerprint,
    statistics,
    stored,
    training_latents,
)
from medrecon.training.images.slices import Slices
from medrecon.training.images.sources import load_slices
from medrecon.training.loop.checkpoint import averaged, training_facts
from medrecon.training.loop.distributed import rank
from medrecon.training.loop.gpu import resident
from medrecon.training.loop.steps import Report, fit

Data = tuple[Slices, Slices]
"""training and validation slices"""
Labels = tuple[Tensor, Tensor] | None
"""classes of training and validation latents"""


def load_data(config: TrainConfig) -> Data:
    """Training and validation slices.

    Raises:
        ValueError: the configuration does not fit together or to the data, or a subject is in both.
    """
    check_config(config)
    manifest = load_manifest(config.manifest)
    check_manifest(config, manifest)
    train, held_out = (load_slices(manifest, split, config.size, config.root) for split in ("train", "val"))
    check_labels(config, train)
    shared = set(train.subjects) & set(held_out.subjects)
    if shared:
        raise ValueError(f"{config.manifest}: subjects in both train and val: {sorted(shared)[:5]}; split by subject")
    if config.phases is not None:
        train, held_out = (replace(slices, phases=config.phases) for slices in (train, held_out))
    return train, held_out


def _seed(config: TrainConfig) -> None:
    # MONAI's constructors draw their initial weights from torch's global generator.
    torch.manual_seed(config.autoencoder_loop.seed)


def _autoencoder(config: TrainConfig) -> TrainingAutoencoder:
    return config.autoencoder.build().to(config.autoencoder_loop.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_autoencoder(config: TrainConfig, folder: Path, report: Report, data: Data | None = None) -> dict[str, float]:
    """Train, or resume, the autoencoder in folder/autoencoder; its validation scores. `data`: if loaded already.

    Raises:
        ValueError: pixel-space diffusion has no autoencoder.
    """
    if isinstance(config.autoencoder, PixelConfig):
        raise ValueError(
            "the configuration's autoencoder is of kind pixels: there is none to train; go on with "
            "`medrecon train diffusion`"
        )
    train, held_out = data or load_data(config)
    with torch.random.fork_rng():
        _seed(config)
        module = _autoencoder(config)
    assert isinstance(module, KLAutoencoder)
    loop, values = config.autoencoder_loop, value_map(config.values)
    if config.start_from is not None:
        start_autoencoder(module, config.start_from)
    else:
        a, g = config.autoencoder, torch.Generator().manual_seed(loop.seed)
        some = crops(train, a.crop, 512, a.augment, g)
        module.fit(values.forward(some.to(loop.device)))
    task = AutoencoderTask(config.autoencoder, values, config.windows, train, held_out, loop.device, loop.bf16)
    average = fit(module, task.loss, task.validate, loop, folder / "autoencoder", report)
    return task.validate(average)


def load_autoencoder(config: TrainConfig, folder: Path) -> TrainingAutoencoder:
    """The averaged weights of folder/autoencoder; or the pixels themselves.

    Raises:
        FileNotFoundError: train the autoencoder first.
    """
    module = _autoencoder(config)
    if isinstance(module, KLAutoencoder):
        module.load_state_dict(averaged(folder / "autoencoder", "medrecon train autoencoder"))
    return module.eval().requires_grad_(False)


def load_latents(
    config: TrainConfig, autoencoder: TrainingAutoencoder, train: Slices, held_out: Slices, folder: Path
) -> dict[str, Tensor]:
    """Latents "train" and "val" of the slices as they are, kept in folder/latents.safetensors."""
    values, loop = value_map(config.values), config.autoencoder_loop
    how = loop.device, loop.bf16

    def make() -> dict[str, Tensor]:
        return {
            **training_latents(autoencoder, values, train, 1, AS_THEY_ARE, loop.seed, *how),
            "val": encode_slices(autoencoder, values, held_out.images(slice(None)), *how),
        }

    return stored(folder / "latents.safetensors", make, fingerprint(autoencoder, train, f"{loop.seed}"))


def load_denoiser(config: TrainConfig, autoencoder: TrainingAutoencoder, latents: Tensor) -> WienerUNet:
    """Random experts around the Wiener filter of the latents; sets the autoencoder's normalisation too."""
    device = config.autoencoder_loop.device
    autoencoder.normalise(*statistics(latents))
    with torch.random.fork_rng():
        _seed(config)
        denoiser = config.diffusion.denoiser(autoencoder.latent_channels, latents.shape[-1])
    denoiser.wiener.fit((latents.float() - autoencoder.latent_mean.cpu()) / autoencoder.latent_std.cpu())
    return denoiser.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def diffusion_task(
    config: TrainConfig,
    name: str,
    denoiser: WienerUNet,
    autoencoder: TrainingAutoencoder,
    latents: Tensor,
    held_out: Tensor,
    labels: Labels,
) -> DiffusionTask:
    some = slice(None, None, max(1, len(held_out) // 24))
    return DiffusionTask(
        denoiser,
        name,
        config.diffusion.experts[name],
        latents,
        held_out[some],
        autoencoder.latent_mean,
        autoencoder.latent_std,
        None if labels is None else (labels[0], labels[1][some]),
    )


def load_labels(config: TrainConfig, data: Data, kept: dict[str, Tensor], path: Path) -> Labels:
    """Classes of the training latents in `path` and of the validation slices, if there are classes.

    Raises:
        ValueError: the file is older than classes.
    """
    rules = config.diffusion.labels
    if not rules:
        return None
    if "slices" not in kept:
        raise ValueError(f"{path} does not say which slices its latents are of, which labels need: remove it")
    return data[0].labels(rules)[kept["slices"]], data[1].labels(rules)


def train_diffusion(
    config: TrainConfig, folder: Path, report: Report, expert: str | None = None, data: Data | None = None
) -> dict[str, Any]:
    """Train, or resume, the experts in folder/diffusion/NAME, one after the other or only the one named.

    The Wiener filter of every expert is the same, so that they can be trained at the same time. `data`: if loaded
    already.

    Raises:
        ValueError: no expert of that name.
    """
    experts = config.diffusion.experts
    if expert is not None and expert not in experts:
        raise ValueError(f"no expert {expert!r} in the configuration: it has {', '.join(experts)}")
    autoencoder = load_autoencoder(config, folder)
    train, held_out = data or load_data(config)
    kept = load_latents(config, autoencoder, train, held_out, folder)
    denoiser, values = load_denoiser(config, autoencoder, kept["train"]), value_map(config.values)
    scores = {}
    for name in [expert] if expert else experts:
        settings, home = experts[name], folder / "diffusion" / name

        def make(settings: ExpertTraining = settings) -> dict[str, Tensor]:
            loop = settings.loop
            return training_latents(
                autoencoder, values, train, settings.views, settings.augment, loop.seed, loop.device, loop.bf16
            )

        how = f"{settings.views} {settings.augment} {settings.loop.seed}"
        path = home / "latents.safetensors"
        own = stored(path, make, fingerprint(autoencoder, train, how))
        labels = load_labels(config, (train, held_out), own, path)
        latents = resident(own["train"], autoencoder.latent_mean.device)
        task = diffusion_task(config, name, denoiser, autoencoder, latents, kept["val"], labels)
        module = denoiser.experts[name]
        if config.start_from is not None:
            start_expert(module, config.start_from, name)
        scores[name] = task.validate(fit(module, task.loss, task.validate, settings.loop, home, report))
    return scores


def start_autoencoder(module: nn.Module, path: Path) -> None:
    """Weights of the autoencoder of a prior.

    Raises:
        FileNotFoundError: no such prior.
        ValueError: it has another architecture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"start_from: {path}: no such prior")
    try:
        module.load_state_dict(read_part(path, "autoencoder"))
    except RuntimeError as error:
        raise ValueError(
            f"start_from: {path} has another autoencoder; the card beside it says which: take its "
            "channels, patch, res_blocks and latent_channels"
        ) from error


def start_expert(module: nn.Module, path: Path, name: str) -> None:
    """Weights of the expert of that name in a prior, if it has one.

    Raises:
        ValueError: it has another architecture.
    """
    state = read_part(path, f"denoiser.experts.{name}")
    table = "net.class_embedding.weight"
    try:
        if state:
            if table in (fresh := module.state_dict()):
                state.setdefault(table, torch.zeros_like(fresh[table]))  # without classes all are alike
            module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"start_from: the expert {name!r} of {path} is another network; the card beside it says "
            "which, and under another name an expert starts at random"
        ) from error


def assemble(config: TrainConfig, folder: Path, data: Data | None = None) -> dict[str, Any]:
    """Write folder/prior.safetensors and its card from the checkpoints as they are; the card.

    Raises:
        FileNotFoundError: the autoencoder or an expert was not trained yet.
    """
    train, held_out = data or load_data(config)
    autoencoder = load_autoencoder(config, folder)
    latents = load_latents(config, autoencoder, train, held_out, folder)
    denoiser = load_denoiser(config, autoencoder, latents["train"])
    rules = config.diffusion.labels
    labels = (held_out.labels(rules), held_out.labels(rules)) if rules else None
    trained = isinstance(autoencoder, KLAutoencoder)
    errors: dict[str, Errors] = {}
    history = {"autoencoder": training_facts(folder / "autoencoder")} if trained else {}
    for name, module in denoiser.experts.items():
        home = folder / "diffusion" / name
        module.load_state_dict(averaged(home, f"medrecon train diffusion --expert {name}"))
        task = diffusion_task(config, name, denoiser, autoencoder, latents["val"], latents["val"], labels)
        errors[name], history[name] = task.errors(module), training_facts(home)
        if rules:
            errors[f"{name}, class told"] = task.errors(module, told=True)
    card = model_card(config, autoencoder, held_out, errors, history)
    if rank() == 0:
        save_prior(folder / "prior.safetensors", autoencoder, denoiser, card)
    return card
