"""Geometry and noise of a scan as values by name, as the measurement file and `info` tell them, and back.

docs/guide/measurement_file.md has the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import torch
from torch import Tensor

from medrecon.core.noise import CTNoise, MRINoise, photons_by_view
from medrecon.core.scan import Scan
from medrecon.geometry import Cartesian, ConeGeometry, FanGeometry, KSpace, ParallelGeometry, Rays, Trajectory

RAYS: dict[str, type[Any]] = {"parallel": ParallelGeometry, "fan": FanGeometry, "cone": ConeGeometry}
"""By the `type` in a file."""
BY_VIEW = ("angles", "heights", "focal_shifts")
"""What changes from view to view: arrays, and absent where it is empty."""


def geometry_values(scan: Scan) -> dict[str, Any]:
    """Return the geometry: arrays as tensors, all else as JSON values; what is not there is absent."""
    geometry = scan.geometry
    if isinstance(geometry, Cartesian | Trajectory):
        crop = {} if geometry.crop is None else {"crop": list(geometry.crop)}
        if isinstance(geometry, Cartesian):
            return crop
        density = {} if geometry.density is None else {"density": geometry.density}
        return {"type": "noncartesian", "trajectory": geometry.samples, **density, **crop}
    values = {f.name: getattr(geometry, f.name) for f in fields(geometry)}
    views = {k: torch.tensor(values.pop(k), dtype=torch.float64) for k in BY_VIEW if k in values}
    kind = next(name for name, cls in RAYS.items() if isinstance(geometry, cls))
    return {
        "type": kind,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
        **{k: v for k, v in views.items() if len(v)},
        "pixel_spacing": list(scan.grid.spacing[-2:]),
    }


def geometry_of(modality: str, values: Mapping[str, Any]) -> Rays | KSpace:
    """Return the geometry that has these values; names that it does not know are left out.

    Raises:
        ValueError: names the entry, what was expected and what came.
    """
    if modality not in ("ct", "mri"):
        raise ValueError(f"modality: expected 'ct' or 'mri', got {modality!r}")
    return _rays(values) if modality == "ct" else _kspace(values)


def _rays(values: Mapping[str, Any]) -> Rays:
    kind = values.get("type")
    if kind not in RAYS:
        raise ValueError(f"geometry/type: expected 'parallel', 'fan' or 'cone', got {kind!r}")
    own = fields(RAYS[kind])
    needed = [f.name for f in own if f.default is MISSING or f.name == "det_offset"]
    if lacking := [name for name in needed if name not in values]:
        raise ValueError(f"geometry/{lacking[0]}: missing")
    rays: Rays = RAYS[kind](**{f.name: values[f.name] for f in own if f.name in values})
    return rays


def _kspace(values: Mapping[str, Any]) -> KSpace:
    kind, crop = values.get("type", "cartesian"), values.get("crop")
    if kind == "cartesian":
        return Cartesian(crop)
    if kind != "noncartesian":
        raise ValueError(f"geometry/type: expected 'cartesian' or 'noncartesian', got {kind!r}")
    if "trajectory" not in values:
        raise ValueError("geometry/trajectory: missing")
    return Trajectory(values["trajectory"], values.get("density"), crop)


def noise_values(scan: Scan) -> dict[str, Any]:
    """Return the noise model, and the attenuation of water: arrays as tensors, numbers; what is not known is absent."""
    water = {} if scan.mu_water is None else {"mu_water": scan.mu_water}
    if scan.noise is None:
        return water
    if isinstance(scan.noise, MRINoise):
        covariance = scan.noise.covariance
        return {"covariance" if isinstance(covariance, Tensor) else "sigma": covariance}
    values = {f.name: getattr(scan.noise, f.name) for f in fields(CTNoise)}
    i0 = _shortest(values.pop("i0"), tuple(scan.data.shape))
    return {**({} if i0 is None else {"i0": i0}), **values, **water}


def _shortest(i0: float | Tensor | None, shape: tuple[int, ...]) -> float | Tensor | None:
    """Photons of the rank of the data as a number, (V,) or (Z, V) where they do not change within a view."""
    if not isinstance(i0, Tensor):
        return i0
    if i0.ndim == 0:
        return float(i0)
    z, v, *within = i0.shape
    if v != shape[1] or any(n != 1 for n in within):
        return i0
    return i0.reshape(v) if z == 1 else i0.reshape(z, v)


def noise_model(modality: str, values: Mapping[str, Any], shape: tuple[int, ...]) -> CTNoise | MRINoise | None:
    """Return the noise model that has these values, None where none is told.

    Args:
        shape: of the whole data.

    Raises:
        ValueError: names the entry, what was expected and what came.
    """
    if modality == "mri":
        if "covariance" in values:
            return MRINoise(torch.as_tensor(values["covariance"]))
        return MRINoise(float(values["sigma"])) if "sigma" in values else None
    known: dict[str, Any] = {f.name: values[f.name] for f in fields(CTNoise) if f.name in values}
    if not known:
        return None
    i0 = known.pop("i0", None)
    numbers = {name: float(value) for name, value in known.items()}
    return CTNoise(None if i0 is None else _photons(i0, shape), **numbers)


def _photons(i0: Any, shape: tuple[int, ...]) -> float | Tensor:
    """Photons of the rank of the data (Z, V, ...), or a number, from those of a file."""
    found = torch.as_tensor(i0)
    if not found.ndim:
        return float(i0)
    z, v = shape[:2]
    if found.ndim < len(shape) and tuple(found.shape) not in {(v,), (z, v)}:
        raise ValueError(f"noise/i0: expected a number, ({v},), ({z}, {v}) or {shape}, got {tuple(found.shape)}")
    return photons_by_view(found, len(shape))
