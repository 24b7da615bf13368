"""What a training configuration must fulfil as a whole: found before hours are spent, each with the key to change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from medrecon.core.device import check_device
from medrecon.data.manifest import Manifest
from medrecon.models.store import value_map
from medrecon.quality.metrics import SSIM_WINDOW
from medrecon.training.autoencoder import AutoencoderConfig
from medrecon.training.config import TrainConfig
from medrecon.training.images.slices import Slices

GROUPS = 16
"""channels a group of MONAI's group normalisation, here and in the networks"""


def check_config(config: TrainConfig) -> None:
    """Sizes, windows, experts and devices fit together.

    Raises:
        ValueError: all that is wrong, with the keys.
    """
    wrong = [*_windows(config), *_sizes(config), *_experts(config), *_devices(config)]
    if wrong:
        raise ValueError("; ".join(wrong))


def check_manifest(config: TrainConfig, manifest: Manifest) -> None:
    """The data are of the modality, and in the units, that the prior is for.

    Raises:
        ValueError: they are not.
    """
    if manifest.modality != config.modality:
        raise ValueError(f"modality: the configuration says {config.modality}, {manifest.path} {manifest.modality}")
    if config.values.get("type") == "asinh" and manifest.units != "HU":
        raise ValueError(f"values: asinh is for HU, but {manifest.path} is in {manifest.units}; say {{type: linear}}")


def check_labels(config: TrainConfig, slices: Slices) -> None:
    """There are training slices of every class.

    Raises:
        ValueError: a class without.
    """
    rules = config.diffusion.labels
    present = set(slices.labels(rules).tolist()) if rules else set()
    for i, (name, rule) in enumerate(rules.items(), 1):
        if i not in present:
            origin = (slices.origins or slices.subjects)[0]
            raise ValueError(
                f"diffusion.labels.{name}: no training slice is of it: {rule!r} is found nowhere, or only "
                f"where an earlier class is, in origins such as {origin!r}"
            )


def _windows(config: TrainConfig) -> Iterator[str]:
    try:
        value_map(config.values)
    except (TypeError, ValueError) as error:
        yield f"values: {error}"
    if not config.windows:
        yield "windows: name at least one, the first the full range, such as full: {low: -1024, high: 3071}"
    for name, window in config.windows.items():
        if window.low >= window.high:
            yield f"windows.{name}: low {window.low:g} is not below high {window.high:g}"


def _sizes(config: TrainConfig) -> Iterator[str]:
    a = config.autoencoder
    sizes = {"size": config.size}
    if isinstance(a, AutoencoderConfig):
        sizes["autoencoder.crop"] = a.crop
        yield from _multiples("autoencoder.channels", a.channels)
        if a.crop > config.size:
            yield f"autoencoder.crop: {a.crop} is more than the size of the slices, {config.size}; lower it"
        if a.ssim and a.crop < SSIM_WINDOW:
            yield f"autoencoder.crop: {a.crop} is less than the {SSIM_WINDOW} pixels of SSIM's window; raise it"
        if a.latent_channels > a.factor**2:
            yield f"autoencoder.latent_channels: {a.latent_channels} are more than the {a.factor**2} pixels of a block"
    for key, value in sizes.items():
        if value % a.factor:
            yield f"{key}: {value} is not a multiple of {a.factor}, the reduction of the autoencoder"


def _experts(config: TrainConfig) -> Iterator[str]:
    bounds = [config.diffusion.sigma_min, *(e.up_to for e in config.diffusion.experts.values())]
    if len(bounds) < 2 or any(a >= b for a, b in pairwise(bounds)):
        yield f"diffusion.experts: their up_to must rise, and begin above sigma_min {bounds[0]:g}: {bounds[1:]}"
    for name, expert in config.diffusion.experts.items():
        key = f"diffusion.experts.{name}.channels"
        yield from _multiples(key, expert.channels)
        if config.diffusion.labels and max(expert.channels, default=GROUPS) <= GROUPS:
            yield f"{key}: {GROUPS} are normalised one by one, which takes away what labels add: give it more somewhere"


def _multiples(key: str, channels: tuple[int, ...]) -> Iterator[str]:
    if not channels or any(c <= 0 or c % GROUPS for c in channels):
        yield f"{key}: {list(channels)} must be multiples of {GROUPS}"


def _devices(config: TrainConfig) -> Iterator[str]:
    loops = [config.autoencoder_loop, *(e.loop for e in config.diffusion.experts.values())]
    for name in sorted({loop.device for loop in loops}):
        try:
            check_device(name)
        except ValueError as error:
            yield str(error)
