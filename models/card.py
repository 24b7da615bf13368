"""The model card of a prior: read, and checked against the size of the weights before any network is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

MOST = {"patch": 64, "latent_channels": 4096, "res_blocks": 64, "decoder_res_blocks": 64, "factor": 64, "fold": 64}
"""Of what a network may have; it also bounds the time to build one."""
LEVELS = 16


class Diffusion(BaseModel):
    """What is needed of the diffusion model."""

    sigma_min: float = Field(gt=0, allow_inf_nan=False)
    experts: dict[str, dict[str, Any]] = Field(min_length=1, max_length=64)
    labels: dict[str, Any] | list[str] = Field(default_factory=dict)


class Card(BaseModel):
    """What is needed of a card; it says more, for people."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    modality: Literal["CT", "MR"]
    units: Literal["HU", "1/mm", "a.u."]
    error: float = Field(ge=0, allow_inf_nan=False)
    values: dict[str, Any]
    autoencoder: dict[str, Any]
    diffusion: Diffusion


def read_card(path: Path, size: int) -> dict[str, Any]:
    """Read a card.

    Args:
        size: bytes of the weights.

    Raises:
        ValueError: names the file and the key: not JSON, something missing or of the wrong kind, or a network that is
            larger than the weights.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        Card.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the card"
        raise ValueError(f"{path}: {key}: {first['msg']}; is it the card of a prior? Reinstall or retrain") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as a model card ({error}); reinstall or retrain") from error
    _check_size(card["autoencoder"], size, f"{path}: autoencoder")
    for name, expert in card["diffusion"]["experts"].items():
        _check_size(expert, size, f"{path}: diffusion.experts.{name}")
    found: dict[str, Any] = card
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _check_size(settings: dict[str, Any], size: int, where: str) -> None:
    """A level of c channels has at least one kernel of c x c x 3 x 3, of two bytes each."""
    channels = settings.get("channels", ())
    whole = isinstance(channels, list | tuple) and all(type(c) is int and c > 0 for c in channels)
    if not whole or len(channels) > LEVELS:
        raise ValueError(f"{where}.channels: expected up to {LEVELS} whole numbers, got {str(channels)[:60]}")
    for key, most in MOST.items():
        value = settings.get(key)
        if value is not None and (type(value) is not int or not 0 < value <= most):
            raise ValueError(f"{where}.{key}: expected 1 to {most}, got {str(value)[:60]}")
    if channels and 18 * max(channels) ** 2 > size:
        raise ValueError(f"{where}.channels: {max(channels)} do not fit into weights of {size} bytes")
