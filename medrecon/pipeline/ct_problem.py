"""A CT scan as a problem: rays, photon noise, HU."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.scan_rays import BY_VIEW
from medrecon.core.units import MU_WATER, mu_to_hu
from medrecon.core.volume import Modality, Units
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import (
    ConeGeometry,
    CTOperator,
    FanGeometry,
    Geometry,
    ImageGrid,
    ParallelGeometry,
    VolumeGrid,
)
from medrecon.pipeline.noise_level import ct_precision

GEOMETRIES: dict[str, type[Any]] = {"parallel": ParallelGeometry, "fan": FanGeometry, "cone": ConeGeometry}
"""By the `type` in a scan's geometry."""


class CTProblem:
    """Images are attenuation in 1/mm, volumes HU, or 1/mm where the scan says so: HU mean nothing at 25 keV."""

    modality: Modality = "CT"

    def __init__(self, scan: Scan, device: str) -> None:
        self.scan, self.device = scan, device
        self.units: Units = scan.units
        self.mu_water = float(scan.noise.get("mu_water", MU_WATER))
        self.A = CTOperator(scan_geometry(scan), scan_grid(scan))
        self.facts = {
            "mu_water_per_mm": self.mu_water,
            "projector": f"{self.A.model}, {self.A.chosen(1)}",
            "noise_model": _summary(scan.noise) or "estimated from the data",
        }

    def operator(self, index: slice) -> LinearOperator:
        return self.A

    def measurement(self, index: slice) -> Measurement:
        start, stop, _ = index.indices(len(self.scan.data))
        data = self.scan.data[index].to(self.device)
        return Measurement(data, ct_precision(data, self.scan.noise_of(start, stop)))

    def prior(self, prior: Prior, index: slice) -> Prior:
        return prior.with_units(slope=1000 / self.mu_water, intercept=-1000.0)

    def values(self, image: Tensor) -> Tensor:
        return mu_to_hu(image, self.mu_water) if self.units == "HU" else image


def _summary(noise: dict[str, Any]) -> dict[str, Any]:
    """A CT noise model for a report: the range of what changes from view to view, not all of it."""
    return {
        k: {"min": float(v.min()), "mean": float(v.double().mean()), "max": float(v.max())}
        if isinstance(v, Tensor) and v.ndim
        else v
        for k, v in noise.items()
        if k != "mu_water"
    }


def scan_geometry(scan: Scan) -> Geometry | ConeGeometry:
    """The rays of a CT scan."""
    kind = GEOMETRIES[scan.geometry["type"]]
    values = {f.name: scan.geometry[f.name] for f in fields(kind) if f.name in scan.geometry}
    values = {name: tuple(v) if isinstance(v, Tensor | list) else v for name, v in values.items()}
    rays: Geometry | ConeGeometry = kind(**values)
    return rays


def geometry_entries(rays: Geometry | ConeGeometry) -> dict[str, Any]:
    """The geometry of a scan with these rays, the inverse of `scan_geometry`."""
    kind = next(name for name, cls in GEOMETRIES.items() if isinstance(rays, cls))
    values = {f.name: getattr(rays, f.name) for f in fields(rays)}
    entries = {name: torch.tensor(values.pop(name), dtype=torch.float64) for name in BY_VIEW if name in values}
    return {"type": kind, **values, **{name: entry for name, entry in entries.items() if len(entry)}}


def scan_grid(scan: Scan) -> ImageGrid | VolumeGrid:
    """The pixels or voxels of a CT scan: their middle on the axis of rotation at height 0, pitch from the affine."""
    column, row, step = torch.linalg.vector_norm(scan.affine[:3, :3], dim=0).tolist()
    *_, height, width = scan.image_shape
    if scan.volumetric:
        return VolumeGrid((scan.slice_count, height, width), (step, row, column))
    return ImageGrid((height, width), (row, column))
