"""What the geometry of an MRI scan may hold. See docs/guide/measurement_file.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SLACK = 1e-6
"""Rounding of a trajectory that ends at the edge of k-space, relative."""


def check_kspace(geometry: Mapping[str, Any], shape: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
    """Check a geometry that belongs to k-space (Z, C, H, W), Cartesian, or (Z, C, S) along a trajectory.

    Raises:
        ValueError: names the key, what was expected and what came.
    """
    kind = check_sampling(geometry)
    crop = geometry.get("crop")
    if crop is not None and not (
        len(crop) == 2 and all(isinstance(n, int) and 1 <= n <= m for n, m in zip(crop, image_shape, strict=True))
    ):
        raise ValueError(f"geometry/crop: expected rows and columns within {tuple(image_shape)}, got {crop}")
    if kind == "cartesian":
        if tuple(shape[2:]) != tuple(image_shape):
            raise ValueError(f"image_shape: expected {tuple(shape[2:])} as in data, got {tuple(image_shape)}")
        return
    samples = shape[2]
    _check_trajectory(geometry.get("trajectory"), samples, image_shape)
    density = geometry.get("density")
    if density is not None:
        good = isinstance(density, Tensor) and not density.is_complex() and tuple(density.shape) == (samples,)
        if not good or not bool((torch.isfinite(density) & (density >= 0)).all()):
            raise ValueError(f"geometry/density: expected ({samples},) weights >= 0, one per sample")


def check_sampling(geometry: Mapping[str, Any]) -> str:
    """The type of a geometry, "cartesian" where it does not say."""
    kind = geometry.get("type", "cartesian")
    if kind not in ("cartesian", "noncartesian"):
        raise ValueError(f"geometry/type: expected 'cartesian' or 'noncartesian', got {kind!r}")
    return str(kind)


def _check_trajectory(trajectory: Any, samples: int, image_shape: tuple[int, ...]) -> None:
    if not isinstance(trajectory, Tensor) or tuple(trajectory.shape) != (samples, 2):
        came = tuple(trajectory.shape) if isinstance(trajectory, Tensor) else type(trajectory).__name__
        raise ValueError(f"geometry/trajectory: expected ({samples}, 2), row and column of every sample, got {came}")
    if trajectory.is_complex() or not bool(torch.isfinite(trajectory).all()):
        raise ValueError("geometry/trajectory: expected real, finite values")
    edge = torch.tensor(image_shape, dtype=torch.float64) / 2
    reach = trajectory.double().abs().amax(0) / edge
    if bool((reach > 1 + SLACK).any()):
        found = [round(float(r), 3) for r in trajectory.abs().amax(0)]
        raise ValueError(
            f"geometry/trajectory: reaches {found} cycles per field of view, an image of {tuple(image_shape)} "
            f"resolves {edge.tolist()}; check the units, or take a larger image"
        )
