"""What a user may say about raw data that its file does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal


class OptionError(ValueError):
    """An option that is wrong in itself, or that the format has no use for."""


@dataclass(frozen=True)
class RawOptions:
    """Options of `read_raw`. None: the file says it, or the format's default; an option a format has no use for is
    refused.

    Attributes:
        slices: (start, stop) of the slices to read; all by default.
        size: rows of the reconstructed image, which is square unless the format says otherwise.
        pixel: pitch of the reconstructed image [mm].
        pixel_size: pitch of the detector elements [mm], where the file lacks it.
        centre: where the rotation axis projects to [detector elements from the middle of the first one]; found by
            itself or taken from the file by default.
        slice_spacing: distance of the slices that helical data are rebinned to [mm].
        direct: keep the cone beam of helical data, for a reconstruction in three dimensions, instead of rebinning.
        contrast, phase, repetition, set: which echo, cardiac phase, repetition or set of a measurement to read, as
            its counters have them; the first by default.
        where: values of free counters, such as {"segment": 0, "user1": 2}, of the readouts to read; these counters mean
            what a sequence wants, so lines that differ in one are never averaged.
        group: which of several measurements of an ISMRMRD file to read, by the name of its group.
        measurement: which of several measurements of a twix file to read, counted from 0.
        coils: number of virtual coils to compress the data to, after whitening by the noise readouts.
        coords: .npy file with the coordinates (..., 2), row and column, of samples along a trajectory.
        coords_units: of these: "cycles/fov", "cycles/pixel" or "radians/pixel"; cycles per field of view by default.
        format: name of the format, instead of recognising it by the file's content.

    Raises:
        OptionError: a value that no format could use.
    """

    slices: tuple[int, int] | None = None
    size: int | None = None
    pixel: float | None = None
    pixel_size: float | None = None
    centre: float | None = None
    slice_spacing: float | None = None
    direct: bool | None = None
    format: str | None = None
    contrast: int | None = None
    phase: int | None = None
    repetition: int | None = None
    set: int | None = None
    where: Mapping[str, int] | None = None
    group: str | None = None
    measurement: int | None = None
    coils: int | None = None
    coords: str | None = None
    coords_units: Literal["cycles/fov", "cycles/pixel", "radians/pixel"] | None = None

    def __post_init__(self) -> None:
        if self.slices is not None and not 0 <= self.slices[0] < self.slices[1]:
            raise OptionError(f"slices: expected (start, stop) with 0 <= start < stop, got {self.slices}")
        for name in ("size", "pixel", "pixel_size", "slice_spacing"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise OptionError(f"{name}: expected a number > 0, got {value}")
        for name in ("contrast", "phase", "repetition", "set", "measurement", "coils"):
            value, least = getattr(self, name), int(name == "coils")
            if value is not None and value < least:
                raise OptionError(f"{name}: expected a number >= {least}, got {value}")
        if self.centre is not None and not abs(self.centre) < float("inf"):
            raise OptionError(f"centre: expected a number, got {self.centre}")

    def given(self) -> dict[str, Any]:
        """The options that were set, without `format`."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "format"}
        return {name: value for name, value in values.items() if value is not None}

    def range(self, count: int) -> tuple[int, int]:
        """The slices to read, out of `count`.

        Raises:
        OptionError: the file has fewer slices.
        """
        start, stop = self.slices or (0, count)
        if stop > count:
            raise OptionError(f"slices {start}:{stop} are not within 0:{count}")
        return start, stop

    def grid(self, size: int, pixel: float) -> tuple[int, float]:
        """Rows and pitch [mm] of the image: the format's own, or other ones over the same field of view."""
        field = size * pixel
        if self.size is not None:
            return self.size, self.pixel or field / self.size
        return (size, pixel) if self.pixel is None else (max(1, round(field / self.pixel)), self.pixel)
