"""Coordinates of k-space samples from outside: their shape, their units, and whether they belong to the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.acquisition.arrays.axes import ordered
from medrecon.acquisition.arrays.values import real_numbers
from medrecon.geometry import Trajectory

CoordsUnits = Literal["cycles/fov", "cycles/pixel", "radians/pixel"]
SLACK = 1e-3
"""By how much coordinates may reach beyond the edge of k-space, relative: they are float32, and rounded before."""
LEAST = 0.5
"""Of the way to the edge of k-space that coordinates reach at least, or they have other units."""
INNER = 0.1
"""Of the way to the edge: in there k-space is strong."""


def along(
    kspace: Tensor, coords: Any, units: CoordsUnits | None, density: Any, shape: tuple[int, int], axes: Any
) -> tuple[Tensor, Trajectory, str]:
    """Return samples (Z, C, S), where they lie, and what the array's axes were.

    Args:
        kspace: complex, the axes of the coordinates among its own, beside each other: "sample" in `axes`.
        coords: real (..., 2), (row, column) of every sample.
        units: of the coordinates; None: cycles per field of view, and they have to reach half of the way to its edge.
        density: (...) weights, or None.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    places = real_numbers("coords", coords)
    if places.ndim < 2 or places.shape[-1] != 2 or not places.numel():
        hint = "; of three dimensions only two are read" if places.shape[-1:] == (3,) else ""
        raise ValueError(f"coords: expected (..., 2), row and column of every sample, got {tuple(places.shape)}{hint}")
    samples = _flat(kspace, tuple(places.shape[:-1]), axes)
    stack, told = ordered("kspace", samples, axes, ("sample",))
    k = _in_cycles(places.reshape(-1, 2), units, shape)
    _check_strength(stack, k, shape)
    weights = None if density is None else real_numbers("density", density)
    if weights is not None and weights.shape != places.shape[:-1]:
        raise ValueError(f"density: expected {tuple(places.shape[:-1])} as coords, got {tuple(weights.shape)}")
    return stack, Trajectory(k, None if weights is None else weights.flatten()), told


def _flat(kspace: Tensor, item: tuple[int, ...], axes: str | Sequence[str] | None) -> Tensor:
    """k-space with the axes of the coordinates joined into one: the last ones, or where "sample" stands in `axes`."""
    words = axes.replace(",", " ").split() if isinstance(axes, str) else list(axes or ())
    behind = len(words) - 1 - words.index("sample") if "sample" in words else 0
    start = kspace.ndim - behind - len(item)
    if start < 0 or tuple(kspace.shape[start : start + len(item)]) != item:
        where = "where axes says sample" if behind else "the last ones"
        raise ValueError(
            f"coords: of samples {item}, and kspace is {tuple(kspace.shape)}: its axes, {where}, have to be those of "
            "coords; numpy.moveaxis brings them there"
        )
    return kspace.flatten(start, start + len(item) - 1)


def _in_cycles(places: Tensor, units: CoordsUnits | None, shape: tuple[int, int]) -> Tensor:
    """(S, 2) cycles per field of view."""
    size = torch.tensor(shape, dtype=torch.float64)
    factors = {"cycles/fov": 1 + 0 * size, "cycles/pixel": size, "radians/pixel": size / (2 * math.pi)}
    if units is not None and units not in factors:
        raise ValueError(f"coords_units: expected one of {', '.join(map(repr, factors))}, got {units!r}")
    k, edge = places * factors[units or "cycles/fov"], size / 2
    reach = float((k.abs() / edge).amax())
    if units is None and not LEAST <= reach <= 1 + SLACK:
        largest = [round(v, 4) for v in places.abs().amax(0).tolist()]
        likely = [
            name for name, f in factors.items() if LEAST <= float((places * f).abs().div(edge).amax()) <= 1 + SLACK
        ]
        raise ValueError(
            f"coords: reach {largest}, and the edge of k-space of an image {shape} is at {edge.tolist()} cycles per "
            f"field of view: say coords_units={' or '.join(map(repr, likely or factors))}, scale them, or give "
            "another image_shape"
        )
    if reach > 1 + SLACK:
        raise ValueError(
            f"coords: reach {reach:.4g} times as far as the edge of k-space of an image {shape} in {units}; check "
            "coords_units and image_shape"
        )
    return torch.minimum(torch.maximum(k, -edge), edge)


def _check_strength(stack: Tensor, k: Tensor, shape: tuple[int, int]) -> None:
    """Samples near the middle of k-space are the strongest, of any object that can be seen."""
    radius = (k / (torch.tensor(shape, dtype=torch.float64) / 2)).square().sum(1).sqrt()
    inner = radius < INNER
    energy = stack.abs().double().square().mean((0, 1))
    if bool(inner.any()) and not bool(inner.all()) and float(energy[inner].mean()) < float(energy[~inner].mean()):
        raise ValueError(
            "coords: the samples near the middle of k-space are weaker than those further out: are they of these "
            "samples, in the same order (readouts, points), and is zero frequency at 0?"
        )
