"""The readouts of one image: which they are, how they encode it, and where its slices lie."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medrecon.acquisition.kspace.choice import chosen
from medrecon.acquisition.kspace.dimensions import dimensions
from medrecon.acquisition.kspace.plausible import check_grid
from medrecon.acquisition.kspace.readouts import Encoding, Index, Readouts
from medrecon.acquisition.kspace.repeats import check_repeats
from medrecon.acquisition.kspace.slice_stack import Slice, check_places, ordered_slices, side_by_side, unplaced
from medrecon.acquisition.options import RawOptions
from medrecon.core.noise import MRINoise

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Selection:
    """Readouts of an image.

    Attributes:
        lines: all readouts of the measurement.
        image, navigators: those of the image, and of its phase.
        encoding: with one partition where the readouts have one.
        slices: those asked for, in order; or the slab.
        span: (start, stop) of the slices asked for, of a stack or of what the slab becomes.
        noise: of the receivers.
        facts: for the provenance.
    """

    lines: Readouts
    image: Index
    navigators: Index
    encoding: Encoding
    slices: list[Slice]
    span: tuple[int, int] | None
    facts: dict[str, Any]
    noise: MRINoise | None = None

    @property
    def slab(self) -> bool:
        """Whether a second phase encoding tells slices apart."""
        return self.encoding.matrix[2] > 1

    def part(self, count: int) -> tuple[int, int]:
        """Return the first slice and the one after the last, of `count` that a slab becomes.

        Raises:
            OptionError: it has fewer.
        """
        return RawOptions(slices=self.span).range(count)


def select(lines: Readouts, encoding: Encoding, options: RawOptions, provenance: dict[str, Any]) -> Selection:
    """Choose the readouts of the image, and of a stack those of the slices asked for; only these are checked.

    Raises:
        ValueError, OptionError: what is wrong with which readout; slices or a contrast that are not there.
    """
    image, facts = chosen(lines, encoding, options)
    facts = {**provenance, **encoding.facts, **facts}
    source = facts.get("source", "raw data")
    slices = ordered_slices(lines, image, encoding.mirrored)
    facts["orientation"] = "file" if slices[0].known else "not in the file: taken as axial"
    encoding, flat = dimensions(lines, image, encoding, slices)
    check_grid(encoding.matrix, encoding.field_mm, encoding.image_mm, "header")
    facts |= flat
    if unplaced(slices):
        facts["positions"] = f"not in the file: slices taken as neighbours of {encoding.image_mm[2]:g} mm without gaps"
        log.warning("%s: the positions of the slices are %s", source, facts["positions"])
        slices = side_by_side(slices, encoding.image_mm[2])
    navigators, span = np.flatnonzero(lines.navigator), options.slices
    if encoding.matrix[2] > 1:
        if len(slices) > 1:
            raise ValueError(f"{len(slices)} slabs of a 3D measurement: only one is read")
    else:
        span = options.range(len(slices))
        slices = slices[slice(*span)]
        counters = [s.counter for s in slices]
        image, navigators = (own[np.isin(lines.counters["slice"][own], counters)] for own in (image, navigators))
    facts |= check_places(lines, image, slices, source)
    if encoding.kind == "cartesian":
        check_repeats(lines, image)
    return Selection(lines, image, navigators, encoding, slices, span, facts)


def of_coils(selection: Selection, alive: Any, noise: MRINoise, how: str) -> Selection:
    """Return the same readouts of these receivers (C,) only, and what is known of their noise."""
    lines = selection.lines.of_coils(alive)
    return replace(selection, lines=lines, noise=noise, facts={**selection.facts, "noise": how})
