"""What a scan asks of a solver: operator, measurement and prior in one system of units, for any run of slices."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from medrecon.core.measurement import Measurement
from medrecon.core.scan import Scan
from medrecon.core.volume import Modality, Units
from medrecon.models.prior import Prior
from medrecon.operators.base import LinearOperator
from medrecon.pipeline.coil_maps import MapMethod
from medrecon.pipeline.ct_problem import CTProblem
from medrecon.pipeline.mri_problem import CartesianProblem, TrajectoryProblem


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


def build_problem(scan: Scan, device: str, maps: MapMethod = "auto") -> Problem:
    """The problem of a scan's modality and sampling.

    Args:
        maps: how to find the coil sensitivities of an MRI scan.

    Raises:
        ValueError: a way to find coil maps given for CT.
    """
    if scan.modality == "ct":
        if maps != "auto":
            raise ValueError(f"maps = {maps!r}: CT has no coils")
        return CTProblem(scan, device)
    return (TrajectoryProblem if scan.noncartesian else CartesianProblem)(scan, device, maps)
