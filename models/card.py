"""The model card of a prior: what of it a prior is made of, checked before any network is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medrecon.core.plain_text import read_json


class Denoising(BaseModel):
    """What a card says of the denoiser."""

    sigma_min: float = Field(gt=0, allow_inf_nan=False)
    experts: dict[str, dict[str, Any]] = Field(min_length=1, max_length=64)
    labels: dict[str, Any] | list[str] = Field(default_factory=dict)


class Steps(BaseModel):
    """What a card says of ReSample; other settings have defaults."""

    start: float = Field(1, gt=0, allow_inf_nan=False)
    end: float = Field(1, gt=0, allow_inf_nan=False)
    steps: int = Field(1, ge=1, le=1000)
    pairs: int = Field(1, ge=1, le=64)


class Card(Steps):
    """What of a card is for the machine; all else is for people."""

    model_config = ConfigDict(extra="allow")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    modality: Literal["CT", "MR"]
    units: Literal["HU", "1/mm", "a.u."]
    error: float = Field(ge=0, allow_inf_nan=False)
    values: dict[str, Any]
    autoencoder: dict[str, Any]
    diffusion: Denoising


def read_card(path: Path) -> tuple[dict[str, Any], Card]:
    """Read a card: as it is, and what of it is for the machine.

    Raises:
        ValueError: names the file and the key: not JSON, something missing or of the wrong kind.
    """
    card = read_json(path)
    try:
        return card, Card.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}; is it the card of a prior? Reinstall or retrain") from error
