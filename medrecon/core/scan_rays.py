"""What the geometry of a CT scan must hold, by its type. See docs/guide/measurement_file.md."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

PARALLEL = ("angles", "det_count", "det_spacing", "det_offset")
FAN = (*PARALLEL, "source_origin", "origin_detector")
KEYS = {"parallel": PARALLEL, "fan": FAN, "cone": ("det_shape", *(key for key in FAN if key != "det_count"))}
BY_VIEW: dict[str, dict[str, tuple[int, ...]]] = {
    "angles": {"parallel": (), "fan": (), "cone": ()},
    "heights": {"cone": ()},
    "focal_shifts": {"fan": (2,), "cone": (3,)},
}
"""What changes from view to view, the types that may have it, and the shape of one view's value."""


def check_rays(geometry: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Check a geometry that belongs to line integrals (Z, V, D), or (1, V, R, D) of a cone beam.

    Raises:
        ValueError: names the key, what was expected and what came.
    """
    kind = check_type(geometry)
    if (detector := geometry.get("detector", "flat")) not in ("flat", "arc"):
        raise ValueError(f"geometry/detector: expected 'flat' or 'arc', got {detector!r}")
    if lacking := [key for key in KEYS[kind] if key not in geometry]:
        raise ValueError(f"geometry/{lacking[0]}: missing")
    views, *elements = shape[1:]
    for key, shapes in BY_VIEW.items():
        if kind in shapes and (key == "angles" or len(geometry.get(key, ()))):
            _check_views(key, geometry[key], (views, *shapes[kind]))
    size, numbers = ("det_shape", "two numbers, row and column") if kind == "cone" else ("det_count", "one number")
    for key in (size, "det_spacing", "det_offset"):
        values = np.atleast_1d(np.asarray(geometry[key], dtype=float))
        if values.shape != (len(elements),) or not np.isfinite(values).all():
            raise ValueError(f"geometry/{key}: expected {numbers}, got {geometry[key]}")
        if key == size and (values != elements).any():
            expected = elements if kind == "cone" else elements[0]
            raise ValueError(f"geometry/{key}: expected {expected} as in data, got {geometry[key]}")
        if key == "det_spacing" and (values <= 0).any():
            raise ValueError(f"geometry/det_spacing: expected mm > 0, got {geometry[key]}")


def check_type(geometry: Mapping[str, Any]) -> str:
    """The type of a geometry."""
    kind = geometry.get("type")
    if kind not in KEYS:
        raise ValueError(f"geometry/type: expected 'parallel', 'fan' or 'cone', got {kind!r}")
    return str(kind)


def check_photons(i0: Any, shape: tuple[int, ...]) -> None:
    """A number, or an array: (V,), (Z, V), or of the rank of the data with each axis as long as theirs, or 1.

    Raises:
        ValueError: another shape.
    """
    if not isinstance(i0, Tensor) or not i0.ndim:
        return
    z, v = shape[:2]
    allowed = {(v,), (z, v), *product(*({1, n} for n in shape))}
    if tuple(i0.shape) not in allowed:
        raise ValueError(f"noise/i0: expected a number, ({v},), ({z}, {v}) or {shape}, got {tuple(i0.shape)}")


def _check_views(key: str, values: Any, shape: tuple[int, ...]) -> None:
    got = torch.as_tensor(values, dtype=torch.float64)
    if tuple(got.shape) != shape:
        each = f" of {shape[1]} numbers" if len(shape) > 1 else ""
        raise ValueError(
            f"geometry/{key}: expected {shape[0]}{each}, one per view, got {len(got)}"
            f"{'' if got.ndim < 2 else f' of {got.shape[1]}'}"
        )
    if not bool(got.isfinite().all()):
        raise ValueError(f"geometry/{key}: NaN or infinite {key}")
