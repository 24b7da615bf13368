"""The model card: what a user must know of a prior."""

from __future__ import annotations

import datetime
from typing import Any

import torch

from medrecon import __version__
from medrecon.data.manifest import load_manifest
from medrecon.models.store import describe, value_map
from medrecon.training.autoencoder import AutoencoderTask
from medrecon.training.config import TrainConfig
from medrecon.training.images.latents import TrainingAutoencoder
from medrecon.training.images.slices import Slices

SPACES = {"kl": "latent", "pixels": "pixel"}
Errors = dict[float, tuple[float, float]]
"""noise level -> mean squared error of the network and of the Gaussian"""


def model_card(
    config: TrainConfig,
    autoencoder: TrainingAutoencoder,
    held_out: Slices,
    errors: dict[str, Errors],
    history: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Data, licences, what was run, figures, limits. `errors` and `history` (facts of the training) by expert; history
    also "autoencoder" where one was trained."""
    values, manifest = value_map(config.values), load_manifest(config.manifest)
    task = AutoencoderTask(
        config.autoencoder, values, config.windows, held_out, held_out, config.autoencoder_loop.device, False
    )
    first = next(iter(config.windows.values()))
    known = lambda x: values.inverse(values.forward(x))  # what the map clips is no error of the autoencoder  # noqa: E731
    squares = [
        (task.round_trip(autoencoder, x) - known(x)).abs().square().mean().item()
        for x in held_out.images(slice(None)).split(8)
    ]
    return {
        "name": f"medrecon {config.modality} {SPACES[config.autoencoder.kind]} diffusion prior",
        "modality": config.modality,
        "units": manifest.units,
        "values": describe(values),
        "start": config.start,
        "end": config.end,
        "steps": config.steps,
        "pairs": config.pairs,
        "search": config.search,
        "search_level": config.search_level,
        "search_below": config.search_below,
        "autoencoder": config.autoencoder.model_dump(mode="json"),
        "diffusion": {
            "sigma_min": config.diffusion.sigma_min,
            "experts": {k: e.model_dump(mode="json") for k, e in config.diffusion.experts.items()},
            "labels": config.diffusion.labels,
        },
        "error": (sum(squares) / len(squares)) ** 0.5,
        "started_from": str(config.start_from) if config.start_from else "random weights",
        "history": history,
        "windows": {k: w.model_dump() for k, w in config.windows.items()},
        "validation": {
            "data": f"{manifest.name}, val: {len(set(held_out.subjects))} subjects, {len(held_out.subjects)} slices",
            "round_trip_db": task.validate(autoencoder),
            "range": [first.low, first.high],
            "denoising_mse": {
                name: {f"{s:g}": {"network": o, "gaussian": g} for s, (o, g) in table.items()}
                for name, table in errors.items()
            },
        },
        "data": manifest.model_dump(mode="json"),
        "software": {"medrecon": __version__, "torch": str(torch.__version__)},
        "date": datetime.date.today().isoformat(),
        "use": "RESEARCH USE ONLY - NOT FOR CLINICAL USE. Trained on few subjects; check the residual and the error.",
    }
