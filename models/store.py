"""Priors on disk: one safetensors file and one JSON model card, tied by sha256. Nothing is ever unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import nn

from medrecon.core import atomic, checksum
from medrecon.core.discover import outside
from medrecon.models.card import Card, read_card
from medrecon.models.networks.kl_autoencoder import KLAutoencoder, KLConfig
from medrecon.models.networks.pixel_space import PixelConfig, PixelSpace
from medrecon.models.networks.wiener_unet import ExpertConfig, WienerUNet
from medrecon.models.prior import Prior
from medrecon.models.values import Asinh, Linear, ValueMap

SHIPPED = Path(__file__).parent / "weights"
Config = TypeVar("Config", bound=BaseModel)


def value_map(settings: dict[str, Any]) -> ValueMap:
    """Return the value map a card describes: {"type": "asinh" | "linear", ...}."""
    kinds = {"asinh": Asinh, "linear": Linear}
    rest = {k: v for k, v in settings.items() if k != "type"}
    if not isinstance(settings.get("type"), str) or settings["type"] not in kinds:
        raise ValueError(f"unknown value map {settings.get('type')!r}: expected one of {sorted(kinds)}")
    for key, value in rest.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"values: {key} is {value!r}, not a number")
    try:
        values = kinds[settings["type"]](**rest)
    except TypeError as error:
        raise ValueError(f"values: {error}") from error
    if values.low >= values.high or (isinstance(values, Asinh) and min(values.knee, values.gain) <= 0):
        raise ValueError(f"values: {settings} are no range of values: low < high, knee and gain above 0")
    return values


def describe(values: ValueMap) -> dict[str, Any]:
    """Return the inverse of `value_map`."""
    assert isinstance(values, Asinh | Linear)
    return {"type": type(values).__name__.lower(), **asdict(values)}


def architecture(config: type[Config], settings: dict[str, Any]) -> Config:
    """Return the part of a card that describes a network, without how it was trained."""
    return config(**{k: v for k, v in settings.items() if k in config.model_fields})


def build_autoencoder(settings: dict[str, Any]) -> KLAutoencoder | PixelSpace:
    """Build the autoencoder a card describes: {"kind": "kl" | "pixels", ...}; "kl" where it does not say."""
    kinds: dict[str, type[KLConfig | PixelConfig]] = {"kl": KLConfig, "pixels": PixelConfig}
    kind = settings.get("kind", "kl")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"unknown kind of autoencoder {kind!r}: expected one of {sorted(kinds)}")
    return architecture(kinds[kind], settings).build()


def save_prior(path: Path, autoencoder: nn.Module, denoiser: nn.Module, card: dict[str, Any]) -> None:
    """Write `path` (.safetensors, network weights in float16) and its card `path`.json, in one commit.

    Raises:
        ValueError: NaN or infinite weights; names the first.
        OSError: it could not be written; names `path`. What was there before is kept.
    """
    from safetensors.torch import save

    tensors = {}
    for part, module in (("autoencoder", autoencoder), ("denoiser", denoiser)):
        halves = {name for name, _ in module.named_parameters()}
        for name, tensor in module.state_dict().items():
            kept = tensor.half() if name in halves else tensor
            tensors[f"{part}.{name}"] = kept.contiguous().clone().cpu()
    require_finite(tensors, path)
    content = save(tensors)
    text = json.dumps({**card, "sha256": checksum.of_bytes(content)}, indent=2) + "\n"
    with atomic.file(path, overwrite=True, beside={path.with_suffix(".json"): text}) as made:
        made.write_bytes(content)


def require_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        ValueError: names the file and the first.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path}: {name}: NaN or infinite weights (float16 ends at 65504); retrain")


def shipped() -> list[str]:
    """Return names of the priors that come with the package."""
    return sorted(p.stem for p in SHIPPED.glob("*.safetensors"))


def installed() -> dict[str, Path]:
    """Return the priors that other distributions bring, by name: in the folders of their modules in medrecon.priors."""
    folders = [Path(str(module.__file__)).parent for module in outside("medrecon.priors")]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}


def read_part(path: Path, part: str) -> dict[str, torch.Tensor]:
    """Read the float32 state of a module, such as "autoencoder" or "denoiser.experts.fine", from a prior's file.

    Raises:
        ValueError: names the file: damaged, or NaN or infinite weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged, or not safetensors ({error}); reinstall or retrain") from error
    require_finite(tensors, path)
    return {k.removeprefix(f"{part}."): v.float() for k, v in tensors.items() if k.startswith(f"{part}.")}


def _networks(path: Path, card: Card) -> tuple[KLAutoencoder | PixelSpace, WienerUNet]:
    """Build the autoencoder and the denoiser, with the weights of the file: sizes are compared before memory is taken.

    Raises:
        ValueError, KeyError, RuntimeError: a setting that is none, a tensor that is missing or of another shape.
    """
    state, coded = read_part(path, "denoiser"), read_part(path, "autoencoder")
    experts = {name: architecture(ExpertConfig, e) for name, e in card.diffusion.experts.items()}
    grid, labels = state["wiener.spectrum"].shape[-2], tuple(card.diffusion.labels)

    def build() -> tuple[KLAutoencoder | PixelSpace, WienerUNet]:
        made = build_autoencoder(card.autoencoder)
        return made, WienerUNet(experts, card.diffusion.sigma_min, made.latent_channels, grid, labels)

    with torch.device("meta"):
        for module, part in zip(build(), (coded, state), strict=True):
            shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
            if shapes != (found := {name: tensor.shape for name, tensor in part.items()}):
                other = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
                raise ValueError(f"{other[0]}: {tuple(found.get(other[0], ()))} in the file, not as the card says")
    autoencoder, denoiser = build()
    autoencoder.load_state_dict(coded)
    denoiser.load_state_dict(state)
    return autoencoder, denoiser


def load_prior(name_or_path: str, device: str | torch.device = "cpu") -> Prior:
    """Load a prior by shipped name ("ct", "mri") or by the path of a .safetensors file with its .json card.

    Raises:
        FileNotFoundError: no such prior; lists the shipped ones.
        ValueError: a card that is not one, or weights that are not those of the card, or NaN. Names the file.
    """
    path = Path(name_or_path)
    if path.suffix != ".safetensors":
        path = SHIPPED / f"{name_or_path}.safetensors"
        path = path if path.exists() else installed().get(name_or_path, path)
    if path.parent == SHIPPED and not path.exists() and Path(name_or_path).is_file():
        raise ValueError(f"{name_or_path}: is no prior; the file of one ends in .safetensors")
    if not path.exists() or not path.with_suffix(".json").exists():
        others = f", installed: {sorted(installed())}" if installed() else ""
        raise FileNotFoundError(
            f"no prior {name_or_path!r} (looked for {path} and its .json card); shipped: {shipped()}{others}, "
            "or give a path"
        )
    card, said = read_card(path.with_suffix(".json"))
    if checksum.of_file(path) != said.sha256:
        raise ValueError(f"{path} does not match the sha256 of its card: damaged or replaced; reinstall or retrain")
    try:
        autoencoder, denoiser = _networks(path, said)
        values = value_map(said.values)
    except (ValueError, RuntimeError, KeyError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: weights and card do not fit each other ({error}); reinstall or retrain") from error
    for module in (autoencoder, denoiser):
        module.eval().requires_grad_(False).to(device)
    return Prior(autoencoder, denoiser, values, said.units, said.modality, said.error, name=path.stem, card=card)
