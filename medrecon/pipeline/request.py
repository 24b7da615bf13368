"""Request: how a scan is to be reconstructed, the keywords of `reconstruct` and `noise_map`."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import torch

from medrecon.core.progress import OnProgress, silent
from medrecon.pipeline.coil_maps import MapMethod


class RequestError(ValueError):
    """What was asked for cannot be, whatever the data are: an unknown name, or things that do not go together."""


@dataclass(frozen=True)
class Request:
    """How to reconstruct a scan.

    Attributes:
        mode: of solvers that have modes.
        slices: (start, stop), a range or a slice of step 1, or the number of one; all by default; not of a cone beam.
        device: "cpu", "cuda" or "cuda:N", or such a torch.device.
        seed: of everything random.
        batch: slices solved at once; by default 8, for learned solvers on a CPU 2 of CT and 1 of MRI. `noise_map` takes
            one by one.
        settings: hyper-parameters of a solver by name; text is converted.
        prior: a shipped prior or a .safetensors file; the modality's own by default.
        label: a class that the prior was trained with, such as "chest"; all of them by default.
        maps: coil sensitivities of MRI: "auto" takes the scan's own, or else ESPIRiT's; the others find them anew.
        on_progress: called with the slices done and the slices in all.

    Raises:
        RequestError: names the keyword, what was expected and what came.
    """

    mode: str | None = None
    slices: tuple[int, int] | None = None
    device: str = "cpu"
    seed: int = 0
    batch: int | None = None
    settings: Mapping[str, Any] | None = None
    prior: str | None = None
    label: str | None = None
    maps: MapMethod = "auto"
    on_progress: OnProgress = silent

    def __post_init__(self) -> None:
        settle = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  # frozen, but not yet out
        settle("slices", _slices(self.slices))
        settle("device", str(self.device) if isinstance(self.device, torch.device) else self.device)
        settle("seed", whole("seed", self.seed))
        if not -(2**63) <= self.seed < 2**63:
            raise RequestError(f"seed: expected a whole number of 64 bits, got {self.seed}")
        if self.batch is not None:
            settle("batch", whole("batch", self.batch))
            if self.batch < 1:
                raise RequestError(f"batch: at least 1 slice at once, got {self.batch}")
        if isinstance(self.prior, os.PathLike):
            settle("prior", os.fspath(self.prior))
        for name in ("mode", "prior", "label"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise RequestError(f"{name}: expected a name or None, got {value!r}")
        for name in ("device", "maps"):
            if not isinstance(getattr(self, name), str):
                raise RequestError(f"{name}: expected a name, got {getattr(self, name)!r}")
        settings = {} if self.settings is None else self.settings
        if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
            raise RequestError(f"settings: expected a mapping such as {{'iterations': 50}}, got {self.settings!r}")
        if not callable(self.on_progress):
            raise RequestError(f"on_progress: expected a function of done and all, got {self.on_progress!r}")

    @property
    def options(self) -> dict[str, Any]:
        """The hyper-parameters, the mode among them."""
        return {**(self.settings or {}), **({"mode": self.mode} if self.mode else {})}

    def refuse(self, names: tuple[str, ...], why: str) -> None:
        """Complain of keywords that have no meaning here.

        Raises:
            RequestError: one of the names was given.
        """
        given = [f.name for f in fields(self) if f.name in names and getattr(self, f.name) != f.default]
        if given:
            raise RequestError(f"{', '.join(given)}: {why}")


def whole(name: str, value: Any) -> int:
    """Return a whole number, of Python or NumPy.

    Raises:
        RequestError: names what is none.
    """
    try:
        if isinstance(value, bool | torch.Tensor):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise RequestError(f"{name}: expected a whole number, got {value!r}") from None


def _slices(value: Any) -> tuple[int, int] | None:
    """(start, stop) of what names slices; whether a scan has them is not known here."""
    if value is None or (isinstance(value, slice) and value == slice(None)):
        return None
    if isinstance(value, slice | range):
        if value.step not in (None, 1):
            raise RequestError(f"slices: expected neighbouring ones, got {value!r}")
        value = value.start or 0, value.stop
    if not isinstance(value, tuple | list):
        first = whole("slices", value)
        return first, first + 1
    if len(value) != 2:
        raise RequestError(f"slices: expected (start, stop) or the number of one slice, got {value!r}")
    return whole("slices", value[0]), whole("slices", value[1])


class Options(TypedDict, total=False):
    """The fields of `Request` as keywords; all may be left out."""

    mode: str | None
    slices: tuple[int, int] | None
    device: str
    seed: int
    batch: int | None
    settings: Mapping[str, Any] | None
    prior: str | None
    label: str | None
    maps: MapMethod
    on_progress: OnProgress
