"""Request: how a scan is to be reconstructed, the keywords of `reconstruct` and `noise_map`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from medrecon.core.progress import OnProgress, silent
from medrecon.pipeline.coil_maps import MapMethod


class RequestError(ValueError):
    """What was asked for cannot be, whatever the data are: an unknown name, or things that do not go together."""


@dataclass(frozen=True)
class Request:
    """How to reconstruct a scan.

    Attributes:
        mode: of solvers that have modes.
        slices: (start, stop), all by default; not of a cone beam.
        device: "cpu", "cuda" or "cuda:N".
        seed: of everything random.
        batch: slices solved at once; by default 8, for learned solvers on a CPU 2 of CT and 1 of MRI. `noise_map` takes
            one by one.
        settings: hyper-parameters of a solver by name; text is converted.
        prior: a shipped prior or a .safetensors file; the modality's own by default.
        label: a class that the prior was trained with, such as "chest"; all of them by default.
        maps: coil sensitivities of MRI: "auto" takes the scan's own, or else ESPIRiT's; the others find them anew.
        on_progress: called with the slices done and the slices in all.

    Raises:
        RequestError: a batch below 1.
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
        if self.batch is not None and self.batch < 1:
            raise RequestError(f"batch: at least 1 slice at once, got {self.batch}")

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
