"""Options shared by commands: the same models are flags, YAML keys, help text and checks."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Pattern = Literal["random", "equispaced", "regular", "gaussian", "gaussian-2d", "poisson", "golden-angle"]
"""the names of `operators.sampling.PATTERNS`, here so that --help needs no torch"""

Maps = Literal["auto", "espirit", "walsh", "jsense", "nlinv"]
"""`pipeline.coil_maps.MapMethod`, here for the same reason"""


MOST_PIXELS = 16384
"""a side of an image, twice that of the largest detectors"""

Modality = Literal["ct", "mri"]
MODALITIES: dict[Modality, Literal["CT", "MR"]] = {"ct": "CT", "mri": "MR"}
"""modalities on the command line, and as images have them"""


class UsageError(Exception):
    """A wrong combination of arguments: exit code 2."""


def as_option(text: str, names: Collection[str]) -> str:
    """Return what the library says of one of its arguments, "pixel_size: ...", as of an option, "--pixel-size: ..."."""
    head = re.match(r"\w*", text)[0]  # type: ignore[index]  # matches always
    return f"--{head.replace('_', '-')}{text[len(head) :]}" if head in names else text


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How to talk."""

    json: Annotated[bool, Parameter(negative="")] = False
    """print the result as JSON on stdout, and nothing else"""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """no progress on stderr"""


@Parameter(name="*")
@dataclass(frozen=True)
class Writing:
    """What a command that writes may do."""

    overwrite: Annotated[bool, Parameter(negative="")] = False
    """replace an existing output"""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """check everything and print the plan; compute and write nothing"""


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""what a generator takes, and a file keeps"""


@Parameter(name="*")
class Model(BaseModel):
    """Options that are checked as they are read: kinds, and ranges beyond which no scanner is, or no memory."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )


def as_share(value: Any) -> Any:
    """Read 25% or 0.25 as 0.25.

    Raises:
        PydanticCustomError: no share above 0 and up to 1.
    """
    from pydantic_core import PydanticCustomError

    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", str(value))
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not LEAST_DOSE <= share <= 1:
        raise PydanticCustomError("share", "expected a share such as 25% or 0.25, from 0.01% to 100%")
    return share


LEAST_DOSE = 1e-4
"""One part in ten thousand: less leaves no photons."""
Share = Annotated[float, BeforeValidator(as_share)]
"""On the command line such as 25% or 0.25"""


class CTOptions(Model):
    """CT acquisition."""

    geometry: Literal["fan", "parallel", "cone", "helix"] = "fan"
    """CT: beam: fan or parallel slice by slice; cone (a circle) or helix through the whole volume, to be reconstructed
    in three dimensions; the source 595 mm before and a flat detector 490.6 mm behind the isocentre"""
    views: int = Field(60, ge=2, le=100_000)
    """CT: projection views, spread evenly over the arc, its end excluded; of a helix, those of each turn"""
    arc: float | None = Field(None, ge=0.1, le=360)
    """CT: arc in degrees; 180 for parallel and 360 for the others unless given; not for helix"""
    i0: float = Field(5e4, ge=1, le=1e12)
    """CT: photons per detector element without object"""
    sigma_e: float = Field(10.0, ge=0, le=1e6)
    """CT: electronic noise, standard deviation in photons"""
    tube_current: Literal["constant", "sinusoidal", "attenuation"] = "constant"
    """CT: how i0 changes from view to view around its mean; attenuation follows the thickest ray of the view"""
    couch: bool = True
    """CT: --no-couch puts air where the image shows something outside the body"""
    dose: Share = 1.0
    """CT: share of the photons, such as 25% or 0.25, of those that --i0 says: an image does not tell with how many it
    was made; `medrecon undersample --dose` takes a share of what a measured scan had"""

    @property
    def radians(self) -> float | None:
        """The arc in rad."""
        return None if self.arc is None else math.radians(self.arc)

    @property
    def photons(self) -> float:
        """Photons per detector element without object, at the dose."""
        return self.dose * self.i0


class MRIOptions(Model):
    """MRI acquisition."""

    accel: float = Field(4.0, ge=1, le=1000)
    """MRI: acceleration R, phase-encoding lines over acquired lines"""
    mask: Pattern = "random"
    """MRI: sampling pattern; gaussian-2d, poisson and golden-angle undersample both axes; regular is every accel-th
    line, the acs lines on top of that"""
    acs: int = Field(24, ge=4, le=MOST_PIXELS)
    """MRI: fully sampled central lines, from which the coil maps are learned; 12 or more"""
    partial_fourier: float = Field(1.0, ge=0.5, le=1)
    """MRI: fraction of the phase-encoding lines that are measured at all; the first ones are left out"""
    coils: int = Field(8, ge=1, le=256)
    """MRI: receiver coils"""
    phase_encoding: Literal["auto", "horizontal", "vertical"] = "auto"
    """MRI: undersampled axis; auto is horizontal unless the object is cut off at the left or right edge"""
    snr: float = Field(30.0, ge=-40, le=150)
    """MRI: 20 log10(mean signal in the object / noise standard deviation of one coil's image), dB; single precision
    ends at 150"""
    trajectory: Literal["cartesian", "golden", "uniform", "spiral"] = "cartesian"
    """MRI: lines of a grid; full spokes at golden-angle or uniform increments; interleaved spirals"""
    readouts: int | None = Field(None, ge=1, le=100_000)
    """MRI: spokes (64 unless given) or spiral interleaves (16)"""

    @property
    def interleaves(self) -> int:
        """Readouts, given or not."""
        return self.readouts or (16 if self.trajectory == "spiral" else 64)


def yaml_content(path: Path, where: str) -> Any:
    """Read a YAML file.

    Raises:
        UsageError: no such file, not text, or not YAML; the message begins with `where`.
    """
    from medrecon.core import plain_text

    try:
        return plain_text.read_yaml(path)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"{where}{str(error).removeprefix(str(path))}") from error


def parse_slices(text: str | None, count: int) -> tuple[int, int]:
    """Read 'A:B' as (A, B): slices A..B-1 of `count`; either may be left out, one number is that one slice.

    Raises:
        UsageError: not of that form, empty, or outside the volume.
    """
    if text is None:
        return 0, count
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", text.strip())
    if not match:
        raise UsageError(f"--slices {text!r}: expected A:B, such as 10:20, :5 or 12")
    if match[3]:
        start, stop = int(match[3]), int(match[3]) + 1
    else:
        start, stop = int(match[1] or 0), int(match[2] or count)
    if not 0 <= start < stop <= count:
        raise UsageError(f"--slices {text!r}: the scan has slices 0:{count}")
    return start, stop


def solver_settings(given: dict[str, str] | None) -> dict[str, str]:
    """Return --settings.a.b-c as the solver names it, a.b_c."""
    return {name.replace("/", ".").replace("-", "_"): value for name, value in (given or {}).items()}
