"""Which readouts of a measurement make one image: one contrast, phase, repetition and set, without calibration."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from medrecon.acquisition.kspace.readouts import Encoding, Flags, Index, Readouts
from medrecon.acquisition.kspace.repeats import doubled
from medrecon.acquisition.options import OptionError, RawOptions

CHOICES: tuple[Literal["contrast", "phase", "repetition", "set"], ...] = ("contrast", "phase", "repetition", "set")
"""Counters of which a scan holds one value; the options of the same names choose it."""


def chosen(lines: Readouts, encoding: Encoding, options: RawOptions) -> tuple[Index, dict[str, Any]]:
    """Return the lines of the image: of the first contrast, cardiac phase, repetition and set, or those asked for.

    Calibration lines count where the header says that they belong to the image, and no line of the image is there.

    Raises:
        ValueError: no readouts of an image.
        OptionError: a value that the file does not have.
    """
    image = ~lines.noise & ~lines.navigator
    facts: dict[str, Any] = {}
    if encoding.calibration != "embedded" and (lines.calibration & image).any():
        facts["calibration_lines_left_out"] = int((lines.calibration & image).sum())
        image &= ~lines.calibration
    if not image.any():
        raise ValueError(
            f"no readouts of an image among {len(lines)} ({int(lines.noise.sum())} of noise, "
            f"{int(lines.navigator.sum())} of navigators, {int(lines.calibration.sum())} of calibration)"
        )
    for name in CHOICES:
        there = np.unique(lines.counters[name][image]).tolist()
        wanted = there[0] if getattr(options, name) is None else getattr(options, name)
        if wanted not in there:
            raise OptionError(f"{name} {wanted}: the file has {_listed(there)}")
        if len(there) > 1:
            facts[name] = f"{wanted} of {_listed(there)}; choose with --{name}"
        image &= lines.counters[name] == wanted
    image &= _where(lines, image, options)
    index = np.flatnonzero(image)
    twice = doubled(lines, index, lines.calibration) if lines.calibration[index].any() else np.zeros(len(index), bool)
    if twice.any():
        facts["calibration_lines_left_out"] = int(twice.sum())
    return index[~twice], facts | ({"where": dict(options.where)} if options.where else {})


def contents(lines: Readouts) -> dict[str, Any]:
    """Return what `info` says of readouts: how many of which kind, and the counters that offer a choice."""
    image = ~lines.noise & ~lines.navigator & ~lines.calibration
    kinds = {"noise": lines.noise, "navigator": lines.navigator, "calibration": lines.calibration}
    found: dict[str, Any] = {"readouts": len(lines), "image_readouts": int(image.sum())}
    found |= {f"{name}_readouts": int(flags.sum()) for name, flags in kinds.items() if flags.any()}
    found["coils"] = int(lines.coils[np.argmax(image)]) if len(lines) else 0
    counters = {name: lines.counters[name] for name in ("slice", "average", *CHOICES)} | dict(lines.free)
    several = {name: np.unique(values[image]).tolist() for name, values in counters.items()}
    return found | {"counters": {name: _listed(values) for name, values in several.items() if len(values) > 1}}


def _where(lines: Readouts, image: Flags, options: RawOptions) -> Flags:
    """The lines of `image` whose free counters have the values asked for."""
    kept = image.copy()
    for name, wanted in (options.where or {}).items():
        if name not in lines.free:
            raise OptionError(f"where.{name}: no such counter; there are: {', '.join(lines.free)}")
        there = np.unique(lines.free[name][kept]).tolist()
        if wanted not in there:
            raise OptionError(f"where.{name} {wanted}: the file has {_listed(there)}")
        kept &= lines.free[name] == wanted
    return kept


def _listed(values: list[int]) -> str:
    """All values, or the first and the last of many."""
    text = [str(v) for v in values]
    return ", ".join(text if len(text) <= 24 else [*text[:20], "...", text[-1]])
