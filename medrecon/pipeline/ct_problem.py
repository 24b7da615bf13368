"""A CT scan as a problem: rays, photon noise, HU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.noise import CTNoise
from medrecon.core.scan import Scan
from medrecon.core.scan_values import noise_values
from medrecon.core.units import MU_WATER, mu_to_hu
from medrecon.core.volume import Modality, Units
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.operator import CTOperator


class CTProblem:
    """Images are attenuation in 1/mm, volumes HU, or 1/mm where the scan says so: HU mean nothing at 25 keV."""

    modality: Modality = "CT"

    def __init__(self, scan: Scan, device: str) -> None:
        self.scan, self.device = scan, device
        self.units: Units = scan.units
        self.mu_water = MU_WATER if scan.mu_water is None else scan.mu_water
        self.A = CTOperator(scan.rays, scan.grid)
        self.facts = {
            "mu_water_per_mm": self.mu_water,
            "projector": f"{self.A.model}, {self.A.chosen()}",
            "noise_model": _summary(noise_values(scan)) or "estimated from the data",
        }

    def operator(self, index: slice) -> LinearOperator:
        return self.A

    def measurement(self, index: slice) -> Measurement:
        start, stop, _ = index.indices(len(self.scan.data))
        data = self.scan.data[index].to(self.device)
        noise = self.scan.noise_of(start, stop)
        return Measurement(data, (noise if isinstance(noise, CTNoise) else CTNoise()).precision(data))

    def prior(self, prior: Prior, index: slice) -> Prior:
        return prior.with_units(slope=1000 / self.mu_water, intercept=-1000.0)

    def values(self, image: Tensor) -> Tensor:
        return mu_to_hu(image, self.mu_water) if self.units == "HU" else image


def _summary(noise: dict[str, Any]) -> dict[str, Any]:
    """A CT noise model for a report: the range of what changes from view to view, not all of it."""
    return {
        k: {"min": float(v.min()), "mean": float(v.double().mean()), "max": float(v.max())}
        if isinstance(v, Tensor)
        else v
        for k, v in noise.items()
        if k != "mu_water"
    }
