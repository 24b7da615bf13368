"""What a scan asks of a solver: operator, measurement and prior in one system of units, for any run of slices."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import Tensor

from medrecon.io.scan import Scan
from medrecon.io.scan_rays import BY_VIEW
from medrecon.linalg import cg
from medrecon.measurement import Measurement
from medrecon.models.base import Prior
from medrecon.noise import MRINoise
from medrecon.operators.base import LinearOperator
from medrecon.operators.coils import smooth_phase
from medrecon.operators.ct import (
    ConeGeometry,
    CTOperator,
    FanGeometry,
    Geometry,
    ImageGrid,
    ParallelGeometry,
    VolumeGrid,
)
from medrecon.operators.espirit import espirit
from medrecon.operators.mri import CartesianMRI
from medrecon.pipeline.noise_level import ct_precision, mri_noise
from medrecon.units import MU_WATER, mu_to_hu
from medrecon.volume import Modality, Units

LEVEL = 0.999
"""Quantile of the magnitude that becomes 1 in the units of an MR prior."""
SCALE_SLICES, SCALE_ITERATIONS = 16, 8
GEOMETRIES: dict[str, type[Any]] = {"parallel": ParallelGeometry, "fan": FanGeometry, "cone": ConeGeometry}
"""By the `type` in a scan's geometry."""


class Problem(Protocol):
    """Items `index` of a scan, its slices or its one volume; images are (B, *image_shape) in units of `operator`."""

    units: Units
    modality: Modality
    facts: dict[str, Any]

    def operator(self, index: slice) -> LinearOperator: ...
    def measurement(self, index: slice) -> Measurement: ...
    def prior(self, prior: Prior, index: slice) -> Prior: ...

    def values(self, image: Tensor) -> Tensor:
        """Images -> values of the output volume, real, in `units`."""
        ...


class CTProblem:
    """Images are attenuation in 1/mm, volumes HU, or 1/mm where the scan says so: HU mean nothing at 25 keV."""

    modality: Modality = "CT"

    def __init__(self, scan: Scan, device: str) -> None:
        self.scan, self.device = scan, device
        self.units: Units = scan.units
        self.mu_water = float(scan.noise.get("mu_water", MU_WATER))
        self.A = CTOperator(scan_geometry(scan), scan_grid(scan))
        self.facts = {
            "mu_water_per_mm": self.mu_water, "projector": f"{self.A.model}, {self.A.chosen(1)}",
            "noise_model": _summary(scan.noise) or "estimated from the data",
        }  # fmt: skip

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


class MRIProblem:
    """Images are complex and of order 1: the scan's own intensity scale (`facts`) is divided out and put back."""

    units: Units = "a.u."
    modality: Modality = "MR"

    def __init__(self, scan: Scan, device: str) -> None:
        self.scan, self.device = scan, device
        self.mask = scan.mask if scan.mask is not None else scan.data.abs().amax((0, 1)) > 0
        noise = mri_noise(scan.data, self.mask, scan.noise)
        self.whitener, self.sigma = whitening(noise, scan.data.shape[1])
        self.scale = 1.0
        self.scale = self._intensity()
        self.facts = {
            "intensity_scale": self.scale, "sigma": self.sigma, "sigma_relative": self.sigma / self.scale,
            "noise_model": "from the scan" if scan.noise else "estimated from the data",
            "coil_maps": "from the scan" if scan.maps is not None else "ESPIRiT",
        }  # fmt: skip

    def _white(self, x: Tensor) -> Tensor:
        x = x.to(self.device)
        return x if self.whitener is None else torch.einsum("ij,bjhw->bihw", self.whitener.to(x), x)

    def _mask(self, index: slice) -> Tensor:
        return (self.mask if self.mask.ndim == 2 else self.mask[index]).to(self.device)

    def _maps(self, index: slice) -> Tensor:
        maps = espirit(self.scan.data[index]) if self.scan.maps is None else self.scan.maps[index]
        return self._white(maps)

    def operator(self, index: slice) -> LinearOperator:
        return CartesianMRI(self._maps(index), self._mask(index))

    def measurement(self, index: slice) -> Measurement:
        mask = self._mask(index)
        mask = mask.reshape(-1, 1, *mask.shape[-2:]).float()
        data = self._white(self.scan.data[index]) * mask / self.scale
        return Measurement(data, mask * (self.scale / self.sigma) ** 2)

    def prior(self, prior: Prior, index: slice) -> Prior:
        return prior.with_phase(smooth_phase(self.measurement(index).data, self._maps(index)))

    def values(self, image: Tensor) -> Tensor:
        return image.abs() * self.scale

    def _intensity(self) -> float:
        """The 99.9 % quantile of the magnitude, from the data alone: a short CG-SENSE of up to 16 slices."""
        count = len(self.scan.data)
        found = []
        for i in range(0, count, -(-count // SCALE_SLICES)):
            A, y = self.operator(slice(i, i + 1)), self.measurement(slice(i, i + 1))
            found.append(cg(A.gram, A.adjoint(y.data), ndim=2, iterations=SCALE_ITERATIONS).x.abs().flatten())
        values = torch.cat(found)
        scale = float(values.kthvalue(max(1, round(LEVEL * values.numel()))).values)
        if not scale > 0:
            raise ValueError("the k-space of this scan has no signal: every acquired sample is 0")
        return scale


def _summary(noise: dict[str, Any]) -> dict[str, Any]:
    """A CT noise model for a report: the range of what changes from view to view, not all of it."""
    return {
        k: {"min": float(v.min()), "mean": float(v.double().mean()), "max": float(v.max())}
        if isinstance(v, Tensor) and v.ndim else v
        for k, v in noise.items() if k != "mu_water"
    }  # fmt: skip


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


def whitening(noise: MRINoise, coils: int) -> tuple[Tensor | None, float]:
    """What makes the coils' noise white, and its standard deviation then: that of the mean coil."""
    if not isinstance(noise.covariance, Tensor):
        return None, noise.covariance
    sigma = float(noise.covariance.diagonal().real.mean().sqrt())
    return noise.whitening(coils) * sigma, sigma


def build_problem(scan: Scan, device: str) -> Problem:
    """The problem of a scan's modality."""
    return CTProblem(scan, device) if scan.modality == "ct" else MRIProblem(scan, device)
